//! What passes between a driver and who takes from it.

use std::collections::BTreeMap;
use std::io;

use rustls_pki_types::PrivatePkcs8KeyDer;

use super::*;

fn material(certificates: u8) -> Material {
    let chain = (0..certificates).map(|one| vec![one].into()).collect();
    let key = PrivatePkcs8KeyDer::from(vec![1]).into();
    Material::new(chain, key, BTreeMap::new())
}

#[tokio::test]
async fn gives_the_newest_alone_and_what_failed_after_it() {
    let (feed, mut intake) = channel();
    feed.failed(&io::Error::other("old"));
    feed.put(material(1));
    feed.put(material(2));
    feed.failed(&io::Error::other("new"));
    let News::Material(found) = intake.next().await else {
        panic!("no material");
    };
    assert_eq!(found.chain.len(), 2);
    let News::Failed(why) = intake.next().await else {
        panic!("no failure");
    };
    assert_eq!(why, "new");
    drop(feed);
    assert!(matches!(intake.next().await, News::Ended));
}

#[tokio::test]
async fn a_refusal_is_told_once_and_forgotten_with_the_next_identity() {
    let (feed, intake) = channel();
    feed.put(material(1));
    intake.refuse();
    feed.refused().await;
    intake.refuse();
    feed.put(material(2));
    let told = tokio::time::timeout(std::time::Duration::from_millis(10), feed.refused());
    told.await.unwrap_err();
}

#[tokio::test]
async fn a_driver_ends_when_nobody_takes_from_it() {
    let (feed, intake) = channel();
    drop(intake);
    feed.closed().await;
}
