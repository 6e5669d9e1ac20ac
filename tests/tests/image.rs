//! The image: built by the Dockerfile, and run as Kubernetes runs it.

use std::process::Command;

use agenticore_tests::{Image, World, missing, output_of, server_binary};
use serde_json::json;

use crate::text;

/// The user of the image.
const USER: &str = "10001:10001";

/// Runs the server of a container's root as process 1, as the image's user, on a read-only root with two empty folders to write to.
/// `$1` mounts the root and prints its folder, `$2` is the folder of the test, `$3` the binary that is not used here.
const RUN: &str = r#"
set -e
root=$(sh -c "$1"); folder=$2; shift 3
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
for empty in home/agenticore tmp; do mount -t tmpfs -o mode=0700,uid=10001,gid=10001 tmpfs "$root/$empty"; done
mkdir -p "$root$folder"
mount --bind "$folder" "$root$folder"
exec chroot "$root" setpriv --reuid=10001 --regid=10001 --clear-groups --bounding-set=-all --no-new-privs /usr/local/bin/agenticore "$@"
"#;

#[tokio::test]
async fn the_image_runs_jobs_as_process_1_of_a_plain_user_on_a_read_only_root() {
    let test = "the_image_runs_jobs_as_process_1_of_a_plain_user_on_a_read_only_root";
    if let Some(reason) = Image::unavailable() {
        return missing(test, &reason);
    }
    let image = tokio::task::spawn_blocking(|| Image::build(server_binary()))
        .await
        .unwrap()
        .unwrap();
    let config = image.config();
    // A number, which is what runAsNonRoot can check.
    assert_eq!(config["User"], USER, "{config}");
    assert_eq!(
        config["Entrypoint"],
        json!(["/usr/local/bin/agenticore"]),
        "{config}"
    );
    assert_eq!(config["Cmd"], json!(["serve"]), "{config}");
    assert!(image.size > image.base_size, "{image:?}");

    let container = image.container();
    let builder = World::builder()
        .env("HOME", "/home/agenticore")
        .env("TMPDIR", "/tmp");
    let folder = builder.path("");
    output_of(Command::new("chown").args(["-R", USER]).arg(&folder)).unwrap();
    let folder = folder.display().to_string();
    let folder = folder.trim_end_matches('/');
    let mounting = container.mounting();
    let words = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--propagation",
        "private",
        "sh",
        "-c",
        RUN,
        "sh",
        &mounting,
        folder,
    ];
    let mut world = builder
        .env("AGENTICORE_JOBS_DIR", &format!("{folder}/jobs"))
        .through(&words)
        .start();

    let id = world
        .submit("echo uid $(id -u) of $(tr '\\0' ' ' </proc/1/cmdline); git --version; touch /usr/x || echo cannot; touch /tmp/x && echo can")
        .await;
    let job = world.ended(&id).await;
    assert_eq!(text(&job, "status"), "succeeded", "{job}");
    for line in [
        "uid 10001 of /usr/local/bin/agenticore serve",
        "git version",
        "cannot",
        "can",
    ] {
        world.logged(&id, line).await;
    }
    // `docker stop`: SIGTERM to process 1, and what runs goes on at the next start.
    world.stop_in_mid_job().await;
    drop(world);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.contains("/image/store"),
        "a mount is left: {mounts}"
    );
}
