//! The client against a server of the test, which answers as Consul does when all is well and as it should not.

#![cfg(feature = "consul")]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use mesh_discovery::Discover as _;
use mesh_discovery::Registry;
use mesh_discovery::RegistryConfig;
use mesh_discovery::ServiceName;
use mesh_discovery::Staleness;
use mesh_discovery::Standing;
use mesh_discovery::Watch;
use mesh_discovery::consul::Client;
use mesh_discovery::consul::Config;
use mesh_discovery::consul::Consistency;
use mesh_discovery::consul::Error;
use mesh_discovery::consul::Query;
use mesh_discovery::consul::SourceConfig;
use mesh_discovery::consul::source;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A server that writes down the head of each request and gives the next of its answers; one that is empty never comes.
struct Server {
    url: String,
    heads: Arc<Mutex<Vec<String>>>,
    answers: mpsc::Sender<String>,
}

impl Server {
    #[expect(
        clippy::disallowed_methods,
        reason = "the server of a test runs beside it"
    )]
    async fn start(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (sender, mut queue) = mpsc::channel::<String>(16);
        for answer in answers {
            sender.send((*answer).to_owned()).await.unwrap();
        }
        let seen = Arc::clone(&heads);
        drop(tokio::task::spawn(async move {
            let mut silent = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                seen.lock().unwrap().push(String::from_utf8(head).unwrap());
                match queue.recv().await {
                    None => break,
                    Some(answer) if answer.is_empty() => silent.push(stream),
                    // Who asked may have gone when it saw enough.
                    Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                }
            }
        }));
        Self {
            url,
            heads,
            answers: sender,
        }
    }

    fn query(&self, token: Option<&'static str>) -> Query {
        let mut config = Config::new(&*self.url);
        config.max_answer = 1000;
        let token = token.map(|token| Arc::new(move || Ok(token.to_owned())) as Arc<_>);
        let client = Client::new(&config, token, Arc::new(|| 0)).unwrap();
        client.watch("/v1/thing?dc=a")
    }

    fn targets(&self) -> Vec<String> {
        let heads = self.heads.lock().unwrap();
        let target = |head: &String| head.split(' ').nth(1).unwrap().to_owned();
        heads.iter().map(target).collect()
    }
}

type IsExpected = fn(&Error) -> bool;

fn ok(index: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\n{index}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test(start_paused = true)]
async fn waits_beyond_the_index_of_the_last_answer_and_starts_anew_when_it_falls() {
    let server = Server::start(&[
        &ok("x-consul-index: 7\r\n", "1"),
        &ok("x-consul-index: 7\r\n", "1"),
        &ok("x-consul-index: 9\r\n", "2"),
        &ok("x-consul-index: 3\r\n", "3"),
        &ok("x-consul-index: 3\r\n", "4"),
    ])
    .await;
    let mut query = server.query(None);
    for value in 1..=4 {
        assert_eq!(query.next::<u32>().await.unwrap().value, value);
    }
    let waits = |index: u64| format!("/v1/thing?dc=a&index={index}&wait=300000ms");
    let first = "/v1/thing?dc=a".to_owned();
    assert_eq!(
        server.targets(),
        [first.clone(), waits(7), waits(7), waits(9), first]
    );
}

#[tokio::test(start_paused = true)]
async fn every_failure_is_one_error_and_backs_off_and_the_next_answer_ends_it() {
    let long = "x".repeat(1001);
    let endless = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n400\r\n{}\r\n",
        "x".repeat(1024)
    );
    let denied = "HTTP/1.1 403 Forbidden\r\ncontent-length: 23\r\n\r\nPermission denied\n\x07 more";
    let moved = "HTTP/1.1 301 Moved Permanently\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let hidden = "x-consul-index: 5\r\nx-consul-results-filtered-by-acls: true\r\n";
    let cases: [(&str, IsExpected); 8] = [
        (
            denied,
            |error| matches!(error, Error::Status { status: 403, message, .. } if message == "Permission denied"),
        ),
        (moved, |error| {
            matches!(error, Error::Status { status: 301, .. })
        }),
        (&ok("", &long), |error| {
            matches!(error, Error::TooLarge { limit: 1000, .. })
        }),
        (&endless, |error| matches!(error, Error::TooLarge { .. })),
        (&ok("", "[]"), |error| matches!(error, Error::Answer { .. })),
        (&ok(hidden, "5"), |error| {
            matches!(error, Error::Filtered { .. })
        }),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n1", |error| {
            matches!(error, Error::Exchange { .. })
        }),
        ("", |error| matches!(error, Error::Timeout { .. })),
    ];
    let answers: Vec<_> = cases.iter().map(|(answer, _)| *answer).collect();
    let server = Server::start(&answers).await;
    let mut query = server.query(None);
    let mut pauses = Vec::new();
    for (answer, expected) in cases {
        let start = Instant::now();
        let error = query.next::<u32>().await.unwrap_err();
        assert!(expected(&error), "{answer}: {error:?}");
        assert!(query.is_failing());
        pauses.push(start.elapsed().as_millis());
    }
    // Half of 1, 2, 4, 8, 10 and 10 s, and then the time that an answer may take.
    let expected = [0, 500, 1000, 2000, 4000, 5000, 5000, 15_000];
    for (pause, expected) in pauses.iter().zip(expected) {
        assert!(pause.abs_diff(expected) < 20, "{pauses:?}");
    }
    server
        .answers
        .send(ok("x-consul-index: 1\r\n", "8"))
        .await
        .unwrap();
    assert_eq!(query.next::<u32>().await.unwrap().value, 8);
    assert!(!query.is_failing());
    assert!(
        server
            .targets()
            .iter()
            .all(|target| target == "/v1/thing?dc=a")
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_refused_is_asked_for_again() {
    let answer = ok("x-consul-index: 7\r\n", "1");
    let server = Server::start(&[&answer, &answer]).await;
    let mut query = server.query(None);
    assert_eq!(query.next::<u32>().await.unwrap().index, 7);
    query.refuse();
    let start = Instant::now();
    assert_eq!(query.next::<u32>().await.unwrap().value, 1);
    assert!(start.elapsed() >= Duration::from_millis(500));
}

#[tokio::test]
async fn an_answer_with_parts_left_out_is_taken_only_where_that_was_asked_for() {
    let hidden = ok(
        "x-consul-index: 5\r\nx-consul-results-filtered-by-acls: true\r\n",
        "5",
    );
    let server = Server::start(&[&hidden, &hidden]).await;
    let mut query = server.query(None).accepting_filtered();
    assert_eq!(query.next::<u32>().await.unwrap().value, 5);
    let client = Client::new(&Config::new(&*server.url), None, Arc::new(|| 0)).unwrap();
    let error = client.get::<u32>("/v1/thing").await.unwrap_err();
    assert!(matches!(error, Error::Filtered { .. }), "{error:?}");
}

#[tokio::test]
async fn the_token_goes_in_its_header_and_shows_nowhere_else() {
    let server =
        Server::start(&[&ok("x-consul-index: 7\r\n", "1"), "HTTP/1.1 500 x\r\n\r\n"]).await;
    let mut query = server.query(Some("3f1c-secret\n"));
    query.next::<u32>().await.unwrap();
    let head = server.heads.lock().unwrap().first().unwrap().clone();
    assert!(head.contains("x-consul-token: 3f1c-secret\r\n"), "{head}");
    let shown = format!("{query:?} {:?}", query.next::<u32>().await.unwrap_err());
    assert!(!shown.contains("secret"), "{shown}");
}

#[tokio::test]
async fn without_the_token_nothing_is_asked() {
    let server = Server::start(&[]).await;
    let config = Config::new(&*server.url);
    let token = || Err(std::io::ErrorKind::NotFound.into());
    let client = Client::new(&config, Some(Arc::new(token)), Arc::new(|| 0)).unwrap();
    let error = client.watch("/v1/thing").next::<u32>().await.unwrap_err();
    assert!(matches!(error, Error::Token { .. }), "{error:?}");
    assert!(server.targets().is_empty());
}

/// The source of a server whose first answer is `answer`, and a watch of the service.
#[expect(
    clippy::disallowed_methods,
    reason = "the driver runs beside the test until its runtime ends"
)]
async fn follow(answers: &[&str], config: SourceConfig) -> (Server, Registry, Watch) {
    let server = Server::start(answers).await;
    let client = Client::new(&Config::new(&*server.url), None, Arc::new(|| 0)).unwrap();
    let (registry, driver) = source(client, config, RegistryConfig::new("consul")).unwrap();
    drop(tokio::task::spawn(driver));
    let watch = registry.watch(&ServiceName::parse("orders").unwrap());
    (server, registry, watch)
}

/// Waits until the source says why it gives no answer.
async fn failure(registry: &Registry) -> String {
    let service = ServiceName::parse("orders").unwrap();
    let failed = async {
        loop {
            let report = registry.reports(&service).remove(0);
            if let Some(failure) = report.failure {
                break failure.to_string();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, failed).await.unwrap()
}

fn instance(port: u32) -> String {
    format!(
        r#"{{"Node":{{"Node":"t","Address":"10.0.0.1"}},"Service":{{"ID":"o-{port}","Port":{port}}}}}"#
    )
}

// threat 50, threat 51
#[tokio::test]
async fn an_answer_that_is_none_leaves_the_last_good_one_in_place() {
    let good = ok("x-consul-index: 7\r\n", &format!("[{}]", instance(80)));
    let hidden = "x-consul-index: 9\r\nx-consul-results-filtered-by-acls: true\r\n";
    let bad = format!("[{},{}]", instance(0), instance(70_000));
    let many = format!("[{}{{}}]", "{},".repeat(10_000));
    let denied = ok("", r#"[{"Allow":true},{"Allow":false}]"#);
    let empty = ok("x-consul-index: 9\r\n", "[]");
    let cases: [(&[&str], &str); 9] = [
        (&[&ok("x-consul-index: 9\r\n", "null")], "not understood"),
        (&[&ok("x-consul-index: 9\r\n", "[{]")], "not understood"),
        (&[&ok("x-consul-index: 9\r\n", &bad)], "t/o-0"),
        (&[&ok("x-consul-index: 9\r\n", &many)], "10001 endpoints"),
        (&[&ok(hidden, "[]")], "acl token"),
        (&[&ok(hidden, &format!("[{}]", instance(81)))], "acl token"),
        (&[&empty, &denied], "acl token"),
        (&[&empty, &ok("", "[]")], "acl token"),
        (
            &["HTTP/1.1 500 x\r\ncontent-length: 17\r\n\r\nNo cluster leader"],
            "No cluster leader",
        ),
    ];
    for (answers, expected) in cases {
        let answers: Vec<_> = [&*good].iter().chain(answers).copied().collect();
        let (_server, registry, watch) = follow(&answers, SourceConfig::default()).await;
        let failure = failure(&registry).await;
        assert!(failure.contains(expected), "{failure}");
        let list = watch.current();
        assert_eq!(list.standing(), Standing::Stale(Staleness::Unreachable));
        assert_eq!(list.first().unwrap().port, 80);
    }
}

// threat 50
#[tokio::test]
async fn an_empty_answer_is_believed_where_the_token_may_read_or_nobody_can_say() {
    let empty = ok("x-consul-index: 9\r\n", "[]");
    for rights in [
        &*ok("", r#"[{"Allow":true},{"Allow":true}]"#),
        "HTTP/1.1 401 Unauthorized\r\ncontent-length: 20\r\n\r\nACL support disabled",
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
    ] {
        let (server, _registry, mut watch) =
            follow(&[&empty, rights], SourceConfig::default()).await;
        let list = watch.resolved().await.unwrap();
        assert_eq!(list.standing(), Standing::Absent);
        assert_eq!(
            server.targets().iter().take(2).collect::<Vec<_>>(),
            ["/v1/health/service/orders", "/v1/internal/acl/authorize"]
        );
    }
}

// threat 50
#[tokio::test]
async fn without_a_leader_a_list_is_shown_and_said_to_be_stale() {
    let any = Consistency::Any {
        max_age: Duration::from_secs(5),
    };
    let config = SourceConfig::default().with_consistency(any);
    let answer = |more: &str, port| {
        let head = format!("x-consul-index: {port}\r\n{more}");
        ok(&head, &format!("[{}]", instance(port)))
    };
    let lost = answer(
        "x-consul-knownleader: false\r\nx-consul-lastcontact: 60000\r\n",
        80,
    );
    let well = answer(
        "x-consul-knownleader: true\r\nx-consul-lastcontact: 40\r\n",
        81,
    );
    let old = answer(
        "x-consul-knownleader: true\r\nx-consul-lastcontact: 5001\r\n",
        82,
    );
    let (server, registry, mut watch) = follow(&[&lost], config).await;
    assert_eq!(watch.resolved().await.unwrap().first().unwrap().port, 80);
    assert!(
        failure(&registry)
            .await
            .contains("heard of its leader 60s ago")
    );
    while !watch.latest().is_stale() {
        watch.changed().await.unwrap();
    }
    server.answers.send(well).await.unwrap();
    while watch.latest().is_stale() || watch.latest().first().unwrap().port != 81 {
        watch.changed().await.unwrap();
    }
    server.answers.send(old).await.unwrap();
    assert!(failure(&registry).await.contains("5.001s"));
    while !watch.latest().is_stale() {
        watch.changed().await.unwrap();
    }
    assert_eq!(watch.latest().first().unwrap().port, 81);
    assert!(
        server
            .targets()
            .iter()
            .all(|target| target.contains("?stale"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nothing_changed_is_a_sign_of_life() {
    let answer = ok("x-consul-index: 7\r\n", &format!("[{}]", instance(80)));
    let (_server, registry, mut watch) = follow(&[&answer, &answer], SourceConfig::default()).await;
    watch.resolved().await.unwrap();
    let report = || {
        registry
            .reports(&ServiceName::parse("orders").unwrap())
            .remove(0)
    };
    let first = report().answered_at;
    while report().answered_at == first {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(watch.current().standing(), Standing::Fresh);
}

#[tokio::test]
async fn the_namespace_goes_in_its_header() {
    let server = Server::start(&[&ok("", "1")]).await;
    let mut config = Config::new(&*server.url);
    config.namespace = Some("shop".to_owned());
    let client = Client::new(&config, None, Arc::new(|| 0)).unwrap();
    client.get::<u32>("/v1/thing").await.unwrap();
    let head = server.heads.lock().unwrap().remove(0);
    assert!(head.contains("x-consul-namespace: shop\r\n"), "{head}");
    for bad in ["", "a b", "a\r\nx: y"] {
        config.namespace = Some(bad.to_owned());
        let made = Client::new(&config, None, Arc::new(|| 0));
        assert!(matches!(made, Err(Error::Setting { .. })), "{bad:?}");
    }
}
