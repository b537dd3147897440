//! Sockets where others may have been before.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener as StdListener;

use super::*;

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/agent.sock");
    (dir, path)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

// threat 61
#[tokio::test]
async fn a_socket_is_for_its_owner_or_a_group_and_goes_with_its_process() {
    let (_dir, path) = place();
    let socket = Socket::open(&path, Access::Owner).unwrap();
    assert_eq!(mode(&path), 0o600);
    drop(socket);
    assert!(!path.exists());
    let _socket = Socket::open(&path, Access::Group(None)).unwrap();
    assert_eq!(mode(&path), 0o660);
    // Nothing else is left in the folder.
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_socket_that_a_dead_process_left_is_replaced() {
    let (_dir, path) = place();
    fs::create_dir(path.parent().unwrap()).unwrap();
    drop(StdListener::bind(&path).unwrap());
    assert!(path.exists());
    let socket = Socket::open(&path, Access::Owner).unwrap();
    let (_client, _server) = tokio::join!(UnixStream::connect(&path), socket.accept());
}

// threat 61
#[tokio::test]
async fn what_somebody_put_there_is_left_alone_and_refused() {
    let (dir, path) = place();
    let folder = path.parent().unwrap();
    fs::create_dir(folder).unwrap();
    let refused = |what: &str| {
        let error = Socket::open(&path, Access::Owner).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    // A socket that answers.
    let living = StdListener::bind(&path).unwrap();
    refused("another process answers");
    drop(living);
    fs::remove_file(&path).unwrap();
    // A file, and a link to what is ours.
    fs::write(&path, "precious").unwrap();
    refused("no socket of ours");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();
    let elsewhere = dir.path().join("elsewhere");
    drop(StdListener::bind(&elsewhere).unwrap());
    symlink(&elsewhere, &path).unwrap();
    refused("no socket of ours");
    fs::remove_file(&path).unwrap();
    // A folder that others may write.
    fs::set_permissions(folder, Permissions::from_mode(0o777)).unwrap();
    refused("can be written by others");
    fs::set_permissions(folder, Permissions::from_mode(0o1777)).unwrap();
    refused("can be written by others");
    // A link in the place of the folder.
    fs::remove_dir(folder).unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    symlink("real", folder).unwrap();
    refused("is a link");
}
