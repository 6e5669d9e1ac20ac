//! A small GitHub on loopback: the REST calls for pull requests, git over HTTP, and files in LFS, on one port and with one token. It refuses what the
//! real one refuses, and remembers every request.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use base64::Engine as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use crate::{Repo, lfs};

/// A running GitHub with the repository `acme/app`.
#[derive(Debug)]
pub struct GitHub {
    port: u16,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    repo: Repo,
    token: String,
    port: Mutex<u16>,
    state: Mutex<GitHubState>,
    opening: watch::Sender<u32>,
}

#[derive(Debug, Default)]
struct GitHubState {
    pulls: Vec<Value>,
    labels: Vec<String>,
    reviewers: Vec<String>,
    requests: Vec<String>,
    /// Answers in place of the next ones to `POST /pulls`.
    troubles: Vec<Trouble>,
}

/// What goes wrong with a request to open a pull request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// This status; nothing is opened.
    Status(u16),
    /// It is opened, and the answer never comes.
    SilenceAfter,
    /// Nothing is opened, and no answer comes.
    Silence,
}

impl GitHub {
    /// Starts one over this repository that takes this token alone.
    ///
    /// # Panics
    /// When no port can be bound.
    pub async fn start(repo: Repo, token: &str) -> Self {
        repo.git(&["config", "http.receivepack", "true"]);
        let shared = Arc::new(Shared {
            repo,
            token: token.to_owned(),
            port: Mutex::default(),
            state: Mutex::default(),
            opening: watch::Sender::new(0),
        });
        let router = Router::new()
            .route("/api/v3/repos/acme/app/pulls", get(list).post(open))
            .route("/api/v3/repos/acme/app/issues/{number}/labels", post(label))
            .route(
                "/api/v3/repos/acme/app/pulls/{number}/requested_reviewers",
                post(review),
            )
            .route("/acme/app.git/info/lfs/objects/batch", post(lfs_batch))
            .route("/acme/app.git/info/lfs/objects/{id}", any(lfs_object))
            .route("/acme/app.git/{*path}", any(git))
            .fallback(|| async { (StatusCode::NOT_FOUND, Json(json!({"message": "Not Found"}))) })
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        *shared.port.lock().unwrap() = port;
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it serves");
        });
        Self { port, shared, task }
    }

    /// The address of its API.
    #[must_use]
    pub fn api(&self) -> String {
        format!("http://127.0.0.1:{}/api/v3", self.port)
    }

    /// The address of its repository.
    #[must_use]
    pub fn repo_url(&self) -> String {
        format!("http://127.0.0.1:{}/acme/app.git", self.port)
    }

    /// The repository behind it.
    #[must_use]
    pub fn repo(&self) -> &Repo {
        &self.shared.repo
    }

    /// The pull requests that are there.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn pulls(&self) -> Vec<Value> {
        self.shared.state.lock().unwrap().pulls.clone()
    }

    /// The labels and reviewers of all pull requests.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn wishes(&self) -> (Vec<String>, Vec<String>) {
        let state = self.shared.state.lock().unwrap();
        (state.labels.clone(), state.reviewers.clone())
    }

    /// What goes wrong with the next requests to open one.
    ///
    /// # Panics
    /// Never.
    pub fn trouble(&self, troubles: impl IntoIterator<Item = Trouble>) {
        self.shared.state.lock().unwrap().troubles = troubles.into_iter().collect();
    }

    /// Waits until it was asked to open a pull request for the `count`th time.
    ///
    /// # Panics
    /// When it is not.
    pub async fn asked_to_open(&self, count: u32) {
        let mut opening = self.shared.opening.subscribe();
        tokio::time::timeout(crate::PATIENCE, opening.wait_for(|n| *n >= count))
            .await
            .unwrap_or_else(|_| panic!("nobody asks to open a pull request {count} times"))
            .expect("it serves");
    }
}

impl Drop for GitHub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn refused(status: u16, message: &str) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    (status, Json(json!({"message": message}))).into_response()
}

/// What the real one wants of every request.
fn check(
    shared: &Shared,
    method: &str,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), Box<Response>> {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    };
    shared
        .state
        .lock()
        .unwrap()
        .requests
        .push(format!("{method} {uri}"));
    if header("authorization") != format!("Bearer {}", shared.token) {
        return Err(Box::new(refused(401, "Bad credentials")));
    }
    if header("user-agent").is_empty() {
        return Err(Box::new(refused(
            403,
            "Request forbidden by administrative rules",
        )));
    }
    if header("accept") != "application/vnd.github+json"
        || header("x-github-api-version") != "2022-11-28"
    {
        return Err(Box::new(refused(400, "wrong version headers")));
    }
    Ok(())
}

async fn list(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<Vec<(String, String)>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = check(&shared, "GET", &uri, &headers) {
        return *refusal;
    }
    let of = |name: &str| {
        query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
            .unwrap_or_default()
    };
    let head = of("head");
    let Some(branch) = head.strip_prefix("acme:") else {
        return refused(422, "head must be OWNER:BRANCH");
    };
    let pulls = shared.state.lock().unwrap().pulls.clone();
    let wanted = |pull: &&Value| head_of(pull) == branch && of("state") == "all";
    Json(pulls.iter().filter(wanted).cloned().collect::<Vec<_>>()).into_response()
}

async fn open(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    if let Err(refusal) = check(&shared, "POST", &uri, &headers) {
        return *refusal;
    }
    let trouble = {
        let mut state = shared.state.lock().unwrap();
        (!state.troubles.is_empty()).then(|| state.troubles.remove(0))
    };
    let answer = match trouble {
        Some(Trouble::Status(status)) => refused(status, "trouble"),
        Some(Trouble::Silence) => refused(500, "never sent"),
        _ => create(&shared, &body),
    };
    shared.opening.send_modify(|count| *count += 1);
    if matches!(trouble, Some(Trouble::Silence | Trouble::SilenceAfter)) {
        std::future::pending::<()>().await;
    }
    answer
}

fn create(shared: &Shared, body: &Value) -> Response {
    let known = ["title", "body", "head", "base", "draft"];
    let fields: Vec<&str> = body
        .as_object()
        .map(|o| o.keys().map(String::as_str).collect())
        .unwrap_or_default();
    if fields.iter().any(|field| !known.contains(field)) {
        return refused(422, &format!("unknown fields in {fields:?}"));
    }
    let text = |name: &str| {
        let text = body.get(name).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let (title, words, head, base) = (text("title"), text("body"), text("head"), text("base"));
    if title.is_empty() || title.chars().count() > 256 || words.chars().count() > 65_536 {
        return refused(422, "the title or body is missing or too long");
    }
    let branches = shared
        .repo
        .git(&["for-each-ref", "--format=%(refname:short)", "refs/heads/"]);
    for branch in [&head, &base] {
        if !branches.lines().any(|there| there == branch) {
            return refused(422, &format!("no branch {branch}"));
        }
    }
    let ahead = shared
        .repo
        .git(&["rev-list", "--count", &format!("{base}..{head}")]);
    if ahead.trim() == "0" {
        return refused(422, "No commits between the branches");
    }
    let mut state = shared.state.lock().unwrap();
    if state.pulls.iter().any(|pull| head_of(pull) == head) {
        return refused(422, "A pull request already exists for this branch");
    }
    let number = state.pulls.len() + 1;
    let port = *shared.port.lock().unwrap();
    let pull = json!({
        "number": number,
        "html_url": format!("http://127.0.0.1:{port}/acme/app/pull/{number}"),
        "title": title, "body": words, "draft": body.get("draft"),
        "head": {"ref": head}, "base": {"ref": base},
    });
    state.pulls.push(pull.clone());
    (StatusCode::CREATED, Json(pull)).into_response()
}

async fn label(
    State(shared): State<Arc<Shared>>,
    Path(_number): Path<u64>,
    uri: Uri,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    if let Err(refusal) = check(&shared, "POST", &uri, &headers) {
        return *refusal;
    }
    let texts: Vec<String> = texts(&body, "labels");
    if texts.iter().any(|label| label == "forbidden") {
        return refused(403, "Resource not accessible");
    }
    shared.state.lock().unwrap().labels.extend(texts);
    Json(json!([])).into_response()
}

async fn review(
    State(shared): State<Arc<Shared>>,
    Path(_number): Path<u64>,
    uri: Uri,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    if let Err(refusal) = check(&shared, "POST", &uri, &headers) {
        return *refusal;
    }
    let mut state = shared.state.lock().unwrap();
    state.reviewers.extend(texts(&body, "reviewers"));
    state.reviewers.extend(texts(&body, "team_reviewers"));
    (StatusCode::CREATED, Json(json!({}))).into_response()
}

/// The branch of a pull request.
fn head_of(pull: &Value) -> &str {
    let head = pull.pointer("/head/ref").and_then(Value::as_str);
    head.unwrap_or_default()
}

fn texts(body: &Value, name: &str) -> Vec<String> {
    let list = body.get(name).and_then(Value::as_array);
    let items = list.cloned().unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

async fn lfs_batch(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    if let Err(refusal) = check_basic(&shared, &headers) {
        return *refusal;
    }
    let asked = serde_json::from_slice(&body).expect("a batch of files in LFS");
    let port = *shared.port.lock().unwrap();
    let base = format!("http://127.0.0.1:{port}/acme/app.git/info/lfs/objects");
    lfs::batch(shared.repo.path(), &base, &basic(&shared), &asked)
}

async fn lfs_object(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refusal) = check_basic(&shared, &headers) {
        return *refusal;
    }
    let given = (method == Method::PUT).then_some(&body);
    lfs::object(shared.repo.path(), &id, given)
}

/// The credentials that git sends.
fn basic(shared: &Shared) -> String {
    let token = format!("x-access-token:{}", shared.token);
    let encoded = base64::engine::general_purpose::STANDARD.encode(token);
    format!("Basic {encoded}")
}

fn check_basic(shared: &Shared, headers: &HeaderMap) -> Result<(), Box<Response>> {
    let given = headers.get("authorization").and_then(|v| v.to_str().ok());
    if given == Some(&basic(shared)) {
        return Ok(());
    }
    let wanted = [("www-authenticate", "Basic realm=\"git\"")];
    Err(Box::new((StatusCode::UNAUTHORIZED, wanted).into_response()))
}

/// git-http-backend(1), as any server of repositories runs it.
async fn git(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    if let Err(refusal) = check_basic(&shared, &headers) {
        return *refusal;
    }
    let mut child = tokio::process::Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", shared.repo.path())
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("PATH_INFO", format!("/{path}"))
        .env("QUERY_STRING", uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", method.as_str())
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("REMOTE_USER", "tests")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git starts");
    let mut input = child.stdin.take().expect("an input");
    let feed = async move {
        drop(input.write_all(&body).await);
        drop(input);
    };
    let (_, output) = tokio::join!(feed, child.wait_with_output());
    let output = output.expect("git ends").stdout;
    let end = output
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or(output.len());
    let (head, rest) = output.split_at(end);
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(head).lines() {
        let Some((name, value)) = line.split_once(": ") else {
            continue;
        };
        if name == "Status" {
            let code = value.split(' ').next().and_then(|code| code.parse().ok());
            response = response.status(code.unwrap_or(500_u16));
        } else {
            response = response.header(name, value);
        }
    }
    let content = rest.get(4..).unwrap_or_default().to_vec();
    response.body(Body::from(content)).expect("a response")
}
