//! The part of a server of repositories that keeps files in LFS, as its
//! [batch API](https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md) with the basic transfer says it.

use std::path::{Path, PathBuf};

use axum::Json;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const KIND: &str = "application/vnd.git-lfs+json";

/// The text that stands for these bytes in a repository.
#[must_use]
pub fn pointer(bytes: &[u8]) -> String {
    let (id, size) = (id(bytes), bytes.len());
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{id}\nsize {size}\n")
}

/// Puts a file among those of the bare repository at `repo`.
///
/// # Panics
/// When it cannot be written.
pub fn store(repo: &Path, bytes: &[u8]) {
    let file = place(repo, &id(bytes));
    std::fs::create_dir_all(file.parent().unwrap_or(repo)).expect("the folder of the file");
    std::fs::write(file, bytes).expect("the file is written");
}

/// The file whose pointer this is, where the repository has it.
#[must_use]
pub fn stored(repo: &Path, pointer: &str) -> Option<Vec<u8>> {
    let id = pointer
        .lines()
        .find_map(|line| line.strip_prefix("oid sha256:"))?;
    std::fs::read(place(repo, id)).ok()
}

/// What is to be done for each of the files that a client asks for.
pub(crate) fn batch(repo: &Path, base: &str, authorization: &str, asked: &Value) -> Response {
    let upload = asked.get("operation") == Some(&json!("upload"));
    let objects = asked.get("objects").and_then(Value::as_array);
    let answers = objects.into_iter().flatten().map(|object| {
        let id = object
            .get("oid")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let action =
            json!({"href": format!("{base}/{id}"), "header": {"Authorization": authorization}});
        let mut answer = object.clone();
        match (upload, place(repo, id).exists()) {
            (true, false) => answer["actions"] = json!({"upload": action}),
            (true, true) => {}
            (false, true) => answer["actions"] = json!({"download": action}),
            (false, false) => answer["error"] = json!({"code": 404, "message": "no such file"}),
        }
        answer
    });
    let answers: Vec<Value> = answers.collect();
    let body = Json(json!({"transfer": "basic", "objects": answers}));
    ([(header::CONTENT_TYPE, KIND)], body).into_response()
}

/// One file, given or taken.
pub(crate) fn object(repo: &Path, wanted: &str, given: Option<&Bytes>) -> Response {
    match given {
        Some(bytes) if id(bytes) == wanted => {
            store(repo, bytes);
            StatusCode::OK.into_response()
        }
        Some(_) => StatusCode::UNPROCESSABLE_ENTITY.into_response(),
        None => match std::fs::read(place(repo, wanted)) {
            Ok(bytes) => bytes.into_response(),
            Err(_) => StatusCode::NOT_FOUND.into_response(),
        },
    }
}

fn id(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut id = String::new();
    for byte in Sha256::digest(bytes) {
        let _ = write!(id, "{byte:02x}");
    }
    id
}

/// As git-lfs itself lays files out.
fn place(repo: &Path, id: &str) -> PathBuf {
    let part = |range| id.get(range).unwrap_or("none");
    repo.join("lfs/objects")
        .join(part(0..2))
        .join(part(2..4))
        .join(id)
}
