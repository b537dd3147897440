//! Files that change in the ways in which they do.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

async fn sees(watch: &mut FileWatch) -> bool {
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, watch.changed()).await.is_ok()
}

#[tokio::test]
async fn sees_a_file_written_renamed_into_place_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.crt");
    let mut watch = FileWatch::new(vec![file.clone()], Vec::new());
    fs::write(&file, "1").unwrap();
    assert!(sees(&mut watch).await);
    fs::write(dir.path().join("new"), "2").unwrap();
    fs::rename(dir.path().join("new"), &file).unwrap();
    assert!(sees(&mut watch).await);
    fs::remove_file(&file).unwrap();
    assert!(sees(&mut watch).await);
}

#[tokio::test]
async fn sees_a_link_pointed_elsewhere_as_kubernetes_does() {
    // threat 63
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for generation in ["..1", "..2", "..3"] {
        fs::create_dir(at(generation)).unwrap();
        fs::write(at(generation).join("a.crt"), generation).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/a.crt", at("a.crt")).unwrap();
    let mut watch = FileWatch::new(vec![at("a.crt")], Vec::new());
    for generation in ["..2", "..3"] {
        symlink(generation, at("..tmp")).unwrap();
        fs::rename(at("..tmp"), at("..data")).unwrap();
        assert!(sees(&mut watch).await, "{generation}");
        assert_eq!(fs::read_to_string(at("a.crt")).unwrap(), generation);
    }
    // And what is written behind the link.
    fs::write(at("..3").join("a.crt"), "3, again").unwrap();
    assert!(sees(&mut watch).await);
}

#[tokio::test]
async fn sees_a_folder_that_was_deleted_and_made_again() {
    // threat 63
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    fs::create_dir(&certs).unwrap();
    let mut watch = FileWatch::new(vec![certs.join("a.crt")], Vec::new());
    fs::remove_dir_all(&certs).unwrap();
    assert!(sees(&mut watch).await);
    fs::create_dir(&certs).unwrap();
    assert!(sees(&mut watch).await);
    fs::write(certs.join("a.crt"), "1").unwrap();
    assert!(sees(&mut watch).await);
}

#[tokio::test]
async fn sees_all_that_is_in_a_folder_but_nothing_else_beside_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    fs::create_dir(&keys).unwrap();
    let mut watch = FileWatch::new(vec![dir.path().join("a.crt")], vec![keys.clone()]);
    fs::write(dir.path().join("busy.log"), "1").unwrap();
    let moment = tokio::time::timeout(SETTLE * 2, watch.changed());
    assert!(moment.await.is_err());
    fs::write(keys.join("any"), "1").unwrap();
    assert!(sees(&mut watch).await);
}

#[test]
fn a_circle_of_links_ends() {
    let dir = tempfile::tempdir().unwrap();
    symlink("b", dir.path().join("a")).unwrap();
    symlink("a", dir.path().join("b")).unwrap();
    assert!(ways_to(&dir.path().join("a")).len() <= 4);
}
