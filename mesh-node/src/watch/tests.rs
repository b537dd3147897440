//! Files on a file system that tells of no changes.

use std::cell::Cell;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_file_that_is_still_written_is_left_alone_also_where_nobody_tells_of_changes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.yaml");
    fs::write(&file, "").unwrap();
    // Nothing is watched, so that only the regular look is left.
    let mut folders = Folders::watch(Vec::new(), "nothing");
    let looks = Cell::new(0);
    let began = Instant::now();
    folders
        .changed(|| {
            // One more piece at each of the first looks.
            looks.set(looks.get() + 1);
            fs::write(&file, "x".repeat(looks.get().min(4))).unwrap();
            Marks(vec![Some((
                0,
                0,
                fs::metadata(&file).unwrap().size(),
                0,
                0,
                0,
                0,
            ))])
        })
        .await;
    assert_eq!(looks.get(), 5);
    assert_eq!(began.elapsed(), LOOK_EVERY + SETTLE * 4);
}
