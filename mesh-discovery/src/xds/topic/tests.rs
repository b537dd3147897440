//! What is said to a server, message by message.

use super::super::follower::Assignments;
use super::super::follower::Clusters;
use super::super::tests::CDS;
use super::super::tests::EDS;
use super::super::tests::assignment;
use super::super::tests::bad_cluster;
use super::super::tests::delta;
use super::super::tests::eds_cluster;
use super::super::tests::whole;
use super::*;

const WAIT: Duration = Duration::from_secs(15);

fn start() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn topic<K: Kind>(is_delta: bool, names: &[&str]) -> Topic<K> {
    let mut topic = Topic::new(is_delta, WAIT);
    for name in names {
        topic.want(name);
    }
    topic.begin_stream(false);
    topic
}

fn take<K: Kind>(topic: &mut Topic<K>, bytes: &[u8]) -> Taken {
    let mut ignored = Ignored::default();
    let response = Response::decode(bytes, topic.is_delta, &mut ignored).unwrap();
    topic.take(start(), &response, &mut ignored)
}

/// Version, names, nonce and refusal of a request of a state of the world.
type Said = (String, Vec<String>, String, Option<String>);

fn next<K: Kind>(topic: &mut Topic<K>) -> Option<Said> {
    let request = topic.next_request(start())?;
    match request.body {
        Body::Whole { version, names } => Some((version, names, request.nonce, request.refusal)),
        Body::Delta { .. } => None,
    }
}

fn said(version: &str, names: &[&str], nonce: &str, refusal: Option<&str>) -> Said {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    (
        version.to_owned(),
        names,
        nonce.to_owned(),
        refusal.map(str::to_owned),
    )
}

#[test]
fn a_response_is_acknowledged_with_its_version_and_nonce() {
    let mut topic = topic::<Clusters>(false, &["a"]);
    assert_eq!(next(&mut topic), Some(said("", &["a"], "", None)));
    assert_eq!(next(&mut topic), None);
    let taken = take(&mut topic, &whole(CDS, "1", "n1", &[eds_cluster("a", "")]));
    assert_eq!(
        (taken.verdict, &*taken.touched),
        (Verdict::Accepted, &["a".to_owned()][..])
    );
    assert_eq!(next(&mut topic), Some(said("1", &["a"], "n1", None)));
    topic.want("b");
    assert_eq!(next(&mut topic), Some(said("1", &["a", "b"], "n1", None)));
}

#[test]
fn a_refusal_names_the_last_good_version_the_resource_and_the_field() {
    let mut topic = topic::<Clusters>(false, &["a", "b"]);
    next(&mut topic);
    take(
        &mut topic,
        &whole(
            CDS,
            "1",
            "n1",
            &[eds_cluster("a", ""), eds_cluster("b", "")],
        ),
    );
    next(&mut topic);
    let bytes = whole(CDS, "2", "n2", &[eds_cluster("a", "x"), bad_cluster("b")]);
    assert_eq!(take(&mut topic, &bytes).verdict, Verdict::Refused);
    let reason =
        "cluster \"b\": envoy.config.cluster.v3.Cluster.type is STRICT_DNS; use EDS or STATIC";
    assert_eq!(
        next(&mut topic),
        Some(said("1", &["a", "b"], "n2", Some(reason)))
    );
    let known = topic.known("b").unwrap();
    assert!(known.value.is_some() && known.refusal.is_some());
    assert!(topic.known("a").unwrap().refusal.is_none());
    // The same again is not answered at once, and its nonce is the next that counts.
    let again = whole(CDS, "2", "n3", &[eds_cluster("a", "x"), bad_cluster("b")]);
    assert_eq!(take(&mut topic, &again).verdict, Verdict::RefusedAgain);
    assert_eq!(next(&mut topic), None);
    topic.unwant("a");
    let both = said("1", &["b"], "n3", Some(reason));
    assert_eq!(next(&mut topic), Some(both));
    assert_eq!(topic.next_due(), None);
}

#[tokio::test(start_paused = true)]
async fn the_same_is_refused_again_after_pauses_that_double_so_that_no_nonce_stays_unanswered() {
    for is_delta in [false, true] {
        let mut topic = topic::<Clusters>(is_delta, &["a"]);
        topic.next_request(start());
        let bad = |nonce: &str| {
            if is_delta {
                delta(CDS, nonce, &[("a", "2", bad_cluster("a"))], &[])
            } else {
                whole(CDS, "2", nonce, &[bad_cluster("a")])
            }
        };
        assert_eq!(take(&mut topic, &bad("n0")).verdict, Verdict::Refused);
        assert!(topic.next_request(start()).unwrap().refusal.is_some());
        for (nonce, pause) in [
            ("n1", 1),
            ("n2", 2),
            ("n3", 4),
            ("n4", 8),
            ("n5", 16),
            ("n6", 30),
            ("n7", 30),
        ] {
            let due = start() + Duration::from_secs(pause);
            assert_eq!(take(&mut topic, &bad(nonce)).verdict, Verdict::RefusedAgain);
            assert_eq!(topic.next_due(), Some(due));
            assert!(!topic.has_request());
            topic.expire(due);
            let request = topic.next_request(start()).unwrap();
            assert_eq!(request.nonce, nonce);
            assert!(request.refusal.is_some());
        }
        take(&mut topic, &bad("n8"));
        topic.end_stream();
        assert_eq!(topic.next_due(), None);
    }
}

#[test]
fn only_a_whole_list_takes_away_what_it_does_not_name() {
    let mut clusters = topic::<Clusters>(false, &["a", "b"]);
    next(&mut clusters);
    take(
        &mut clusters,
        &whole(CDS, "1", "n1", &[eds_cluster("a", "")]),
    );
    // Never seen: it may have been asked for after this was written.
    assert!(!clusters.known("b").unwrap().is_absent);
    take(
        &mut clusters,
        &whole(CDS, "2", "n2", &[eds_cluster("b", "")]),
    );
    assert!(clusters.known("a").unwrap().is_absent);

    let mut assignments = topic::<Assignments>(false, &["a", "b"]);
    next(&mut assignments);
    take(
        &mut assignments,
        &whole(EDS, "1", "n1", &[assignment("a", &[1])]),
    );
    take(
        &mut assignments,
        &whole(EDS, "2", "n2", &[assignment("b", &[1])]),
    );
    assert!(assignments.known("a").unwrap().value.is_some());
}

// threat 51
#[test]
fn a_resource_whose_name_can_not_be_read_takes_nothing_away() {
    let mut topic = topic::<Clusters>(false, &["a"]);
    next(&mut topic);
    take(&mut topic, &whole(CDS, "1", "n1", &[eds_cluster("a", "")]));
    let taken = take(&mut topic, &whole(CDS, "2", "n2", &[b"\xff\xff".to_vec()]));
    assert_eq!(taken.verdict, Verdict::Refused);
    assert!(topic.known("a").unwrap().value.is_some());
    let (_, _, _, refusal) = next(&mut topic).unwrap();
    assert_eq!(
        refusal.as_deref(),
        Some("resource 0 of the response has no name that can be read")
    );
}

#[test]
fn what_was_not_asked_for_and_what_is_there_twice_is_not_taken() {
    let mut topic = topic::<Clusters>(false, &["a"]);
    next(&mut topic);
    take(
        &mut topic,
        &whole(CDS, "1", "n1", &[eds_cluster("a", "x"), bad_cluster("z")]),
    );
    assert_eq!(topic.entries.len(), 1);
    let twice = [eds_cluster("a", "y"), eds_cluster("a", "z")];
    assert_eq!(
        take(&mut topic, &whole(CDS, "2", "n2", &twice)).verdict,
        Verdict::Refused
    );
    let value = topic.known("a").unwrap().value.unwrap();
    assert_eq!(
        **value,
        super::super::cluster::Cluster::Assigned("x".to_owned())
    );
}

// threat 51
#[test]
fn what_is_given_and_removed_at_once_stays_as_it_was() {
    let mut topic = topic::<Assignments>(true, &["a"]);
    next(&mut topic);
    let good = assignment("a", &[1]);
    take(&mut topic, &delta(EDS, "n1", &[("a", "1", good)], &[]));
    let other = assignment("a", &[2]);
    let both = delta(EDS, "n2", &[("a", "2", other)], &["a"]);
    assert_eq!(take(&mut topic, &both).verdict, Verdict::Refused);
    assert_eq!(take(&mut topic, &both).verdict, Verdict::RefusedAgain);
    let known = topic.known("a").unwrap();
    assert!(!known.is_absent);
    assert_eq!(known.value.unwrap().endpoints[0].port, 1);
    assert!(known.refusal.unwrap().to_string().contains("at once"));
}

#[test]
fn incremental_requests_say_what_is_new_and_what_is_there_from_before() {
    let mut topic = topic::<Assignments>(true, &["a", "b"]);
    let body = |subscribe: &[&str], unsubscribe: &[&str], versions: &[(&str, &str)]| {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let versions = versions
            .iter()
            .map(|(name, version)| ((*name).to_owned(), (*version).to_owned()));
        Body::Delta {
            subscribe: own(subscribe),
            unsubscribe: own(unsubscribe),
            versions: versions.collect(),
        }
    };
    assert_eq!(
        topic.next_request(start()).unwrap().body,
        body(&["a", "b"], &[], &[])
    );
    take(
        &mut topic,
        &delta(EDS, "n1", &[("a", "7", assignment("a", &[1]))], &["b"]),
    );
    let ack = topic.next_request(start()).unwrap();
    assert_eq!(
        (ack.nonce.as_str(), ack.refusal, ack.body),
        ("n1", None, body(&[], &[], &[]))
    );
    assert!(topic.known("b").unwrap().is_absent);
    topic.unwant("b");
    topic.want("c");
    let change = topic.next_request(start()).unwrap();
    assert_eq!(
        (change.nonce.as_str(), change.body),
        ("", body(&["c"], &["b"], &[]))
    );
    // The same server again, then another.
    topic.begin_stream(true);
    assert_eq!(
        topic.next_request(start()).unwrap().body,
        body(&["a", "c"], &[], &[("a", "7")])
    );
    topic.begin_stream(false);
    assert_eq!(
        topic.next_request(start()).unwrap().body,
        body(&["a", "c"], &[], &[])
    );
}

#[test]
fn what_never_comes_is_absent_in_the_end_and_what_was_there_is_kept() {
    let now = start();
    let mut topic = topic::<Assignments>(false, &["a", "b"]);
    topic.next_request(now);
    take(&mut topic, &whole(EDS, "1", "n1", &[assignment("a", &[1])]));
    assert_eq!(topic.next_due(), Some(now + WAIT));
    assert_eq!(topic.expire(now + WAIT / 2), Vec::<String>::new());
    assert_eq!(topic.expire(now + WAIT), ["b"]);
    assert!(topic.known("b").unwrap().is_absent);
    assert_eq!(topic.next_due(), None);
    // Another server says nothing of either.
    topic.begin_stream(false);
    topic.next_request(now);
    topic.expire(now + WAIT);
    let known = topic.known("a").unwrap();
    assert!(known.value.is_some() && !known.is_absent);
    assert_eq!(
        known.refusal.unwrap().to_string(),
        "cluster load assignment \"a\": is not given by this server"
    );
}

#[test]
fn a_list_that_was_only_good_for_a_time_is_doubted_after_it() {
    let mut writer = super::super::wire::Writer::default();
    writer.text(1, "a");
    writer.message(4, |policy| {
        policy.message(4, |duration| duration.uint64(1, 30));
    });
    let bytes = writer.finish();
    let mut topic = topic::<Assignments>(false, &["a"]);
    topic.next_request(start());
    take(
        &mut topic,
        &whole(EDS, "1", "n1", std::slice::from_ref(&bytes)),
    );
    let due = topic.next_due().unwrap();
    assert_eq!(topic.expire(due), ["a"]);
    let known = topic.known("a").unwrap();
    assert!(
        known.value.is_some()
            && known
                .refusal
                .unwrap()
                .to_string()
                .contains("endpoint_stale_after")
    );
    take(&mut topic, &whole(EDS, "2", "n2", &[bytes]));
    assert!(topic.known("a").unwrap().refusal.is_none());
}

#[test]
fn the_reasons_of_a_refusal_are_bounded() {
    let names: Vec<String> = (0..100)
        .map(|index| format!("{index}{}", "x".repeat(1000)))
        .collect();
    let mut topic = topic::<Clusters>(false, &names.iter().map(String::as_str).collect::<Vec<_>>());
    next(&mut topic);
    let resources: Vec<_> = names.iter().map(|name| bad_cluster(name)).collect();
    take(&mut topic, &whole(CDS, "1", "n1", &resources));
    let (_, _, _, refusal) = next(&mut topic).unwrap();
    assert_eq!(refusal.unwrap().len(), MAX_DETAIL);
}
