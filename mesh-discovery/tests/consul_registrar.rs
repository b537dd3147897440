//! Registering with a real agent: each kind of check, restarts, maintenance, and rights.

#![cfg(feature = "consul")]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use mesh_discovery::Condition;
use mesh_discovery::Endpoint;
use mesh_discovery::Register as _;
use mesh_discovery::Registration;
use mesh_discovery::RegistrationState;
use mesh_discovery::Renewed;
use mesh_discovery::ServiceName;
use mesh_discovery::consul::AgentCheck;
use mesh_discovery::consul::Client;
use mesh_discovery::consul::Config;
use mesh_discovery::consul::Registrar;
use mesh_discovery::consul::RegistrarConfig;
use mesh_discovery::consul::endpoints;
use mesh_discovery::keep_registered;
use support::consul::Consul;
use support::process::Process;
use support::process::free_port;
use support::process::holds_within;
use support::process::is_open;
use support::process::wait_until;
use support::tools::python_with_grpc;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::sync::watch;

mod support;

fn registrar_with(consul: &Consul, config: RegistrarConfig, token: Option<String>) -> Registrar {
    let token = token.map(|token| Arc::new(move || Ok(token.clone())) as Arc<_>);
    let client = Client::new(&Config::new(consul.url()), token, Arc::new(|| 7)).unwrap();
    Registrar::new(client, config).unwrap()
}

fn registrar(consul: &Consul, config: RegistrarConfig) -> Registrar {
    registrar_with(consul, config, None)
}

/// An id that a path must not be made of as it is.
fn registration() -> Registration {
    let mut endpoint = Endpoint::new("fd00::7".parse().unwrap(), 8080);
    endpoint.id.push_str("/a b");
    endpoint.weight = 7.try_into().unwrap();
    endpoint.zone = Some("a".to_owned());
    endpoint.tags = vec!["blue".to_owned()];
    endpoint
        .metadata
        .insert("team".to_owned(), "shop".to_owned());
    Registration::new(ServiceName::parse("orders").unwrap(), endpoint)
}

/// What Consul says of the service now.
fn found(consul: &Consul) -> Vec<Endpoint> {
    let answer = consul.get("/v1/health/service/orders").expect(200);
    let (list, refused) = endpoints(&answer.body).unwrap();
    assert_eq!(refused.count, 0, "{refused:?}");
    list
}

fn condition(consul: &Consul) -> Option<Condition> {
    found(consul).first().map(|endpoint| endpoint.condition)
}

#[track_caller]
fn becomes(consul: &Consul, expected: Option<Condition>) {
    wait_until("the condition is another", || condition(consul) == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_registered_reads_back_the_same_and_shows_each_condition() {
    let dir = TempDir::new().unwrap();
    let Some(consul) = Consul::start(dir.path()) else {
        return;
    };
    let registrar = registrar(&consul, RegistrarConfig::default());
    let registration = registration();
    assert_eq!(
        registrar
            .renew(&registration, Condition::Passing)
            .await
            .unwrap(),
        Renewed::Forgotten
    );
    registrar.register(&registration).await.unwrap();
    becomes(&consul, Some(Condition::Critical));
    for condition in [
        Condition::Passing,
        Condition::Warning,
        Condition::Critical,
        Condition::Draining,
        Condition::Passing,
    ] {
        let renewed = registrar.renew(&registration, condition).await.unwrap();
        assert_eq!(renewed, Renewed::Kept);
        becomes(&consul, Some(condition));
    }
    let mut read = found(&consul).remove(0);
    assert_eq!(read.id, "t/[fd00::7]:8080/a b");
    for key in ["node", "datacenter"] {
        read.metadata.remove(key).unwrap();
    }
    read.id.clone_from(&registration.endpoint.id);
    assert_eq!(read, registration.endpoint);
    for _ in 0..2 {
        registrar.deregister(&registration).await.unwrap();
    }
    becomes(&consul, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_again_does_not_make_a_working_endpoint_look_broken() {
    let dir = TempDir::new().unwrap();
    let Some(consul) = Consul::start(dir.path()) else {
        return;
    };
    let registrar = registrar(&consul, RegistrarConfig::default());
    let registration = registration();
    registrar.register(&registration).await.unwrap();
    registrar
        .renew(&registration, Condition::Passing)
        .await
        .unwrap();
    becomes(&consul, Some(Condition::Passing));
    for _ in 0..5 {
        registrar.register(&registration).await.unwrap();
        let checks = consul.get("/v1/agent/checks").expect(200).json();
        let check = &checks["service:[fd00::7]:8080/a b"];
        assert_eq!(check["Status"], "passing", "{checks}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_of_others_stays_and_that_of_who_drained_ends_when_it_comes_back() {
    let dir = TempDir::new().unwrap();
    let Some(consul) = Consul::start(dir.path()) else {
        return;
    };
    let registration = registration();
    let drains = registrar(&consul, RegistrarConfig::default());
    drains.register(&registration).await.unwrap();
    drains
        .renew(&registration, Condition::Draining)
        .await
        .unwrap();
    becomes(&consul, Some(Condition::Draining));
    // The process died while it drained; the next one has the same id.
    drop(drains);
    let comes_back = registrar(&consul, RegistrarConfig::default());
    comes_back.register(&registration).await.unwrap();
    comes_back
        .renew(&registration, Condition::Passing)
        .await
        .unwrap();
    becomes(&consul, Some(Condition::Passing));
    comes_back
        .enable_maintenance(&registration, "an operator: \"&=? disks")
        .await
        .unwrap();
    becomes(&consul, Some(Condition::Draining));
    comes_back.register(&registration).await.unwrap();
    for condition in [Condition::Draining, Condition::Passing] {
        comes_back.renew(&registration, condition).await.unwrap();
    }
    let checks = consul.get("/v1/agent/checks").expect(200).text();
    assert!(checks.contains("an operator"), "{checks}");
    assert_eq!(condition(&consul), Some(Condition::Draining));
    comes_back.disable_maintenance(&registration).await.unwrap();
    becomes(&consul, Some(Condition::Passing));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_sign_of_life_it_is_critical() {
    let dir = TempDir::new().unwrap();
    let Some(consul) = Consul::start(dir.path()) else {
        return;
    };
    let config = RegistrarConfig::default().with_check(AgentCheck::Ttl(Duration::from_secs(1)));
    let registrar = registrar(&consul, config);
    let registration = registration();
    registrar.register(&registration).await.unwrap();
    registrar
        .renew(&registration, Condition::Passing)
        .await
        .unwrap();
    becomes(&consul, Some(Condition::Passing));
    becomes(&consul, Some(Condition::Critical));
}

/// Consul takes no less than a minute for this and looks each 30 s, so the test takes as long.
#[tokio::test(flavor = "multi_thread")]
async fn who_stays_critical_is_given_up() {
    let dir = TempDir::new().unwrap();
    let Some(consul) = Consul::start(dir.path()) else {
        return;
    };
    let config = RegistrarConfig::default().with_deregister_after(Some(Duration::from_mins(1)));
    let registrar = registrar(&consul, config);
    let registration = registration();
    registrar.register(&registration).await.unwrap();
    becomes(&consul, Some(Condition::Critical));
    let limit = Duration::from_mins(2);
    let is_gone =
        tokio::task::block_in_place(|| holds_within(limit, || condition(&consul).is_none()));
    assert!(is_gone);
    let renewed = registrar
        .renew(&registration, Condition::Passing)
        .await
        .unwrap();
    assert_eq!(renewed, Renewed::Forgotten);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_asks_by_itself_over_tcp_http_and_grpc() {
    let dir = TempDir::new().unwrap();
    let Some(consul) = Consul::start(dir.path()) else {
        return;
    };
    let Some(python) = python_with_grpc() else {
        return;
    };
    let (http, grpc) = (free_port(), free_port());
    let mut command = Command::new(python);
    command.args(["-c", SERVER, &http.to_string(), &grpc.to_string()]);
    let mut server = Process::start(&mut command, dir.path(), "server");
    wait_until("the application listens", || is_open(http) && is_open(grpc));
    let interval = Duration::from_secs(1);
    let checks = [
        AgentCheck::Tcp {
            address: format!("127.0.0.1:{http}"),
            interval,
        },
        AgentCheck::Http {
            url: format!("http://127.0.0.1:{http}/health"),
            interval,
        },
        AgentCheck::Grpc {
            target: format!("127.0.0.1:{grpc}/shop.Orders"),
            uses_tls: false,
            interval,
        },
    ];
    let all: Vec<_> = checks
        .into_iter()
        .enumerate()
        .map(|(number, check)| {
            let mut registration = registration();
            registration.endpoint.id = format!("o-{number}");
            let config = RegistrarConfig::default().with_check(check);
            (registrar(&consul, config), registration)
        })
        .collect();
    for (registrar, registration) in &all {
        let forgotten = registrar
            .renew(registration, Condition::Passing)
            .await
            .unwrap();
        assert_eq!(forgotten, Renewed::Forgotten);
        registrar.register(registration).await.unwrap();
        let kept = registrar
            .renew(registration, Condition::Passing)
            .await
            .unwrap();
        assert_eq!(kept, Renewed::Kept);
    }
    let all_are = |condition| {
        let list = found(&consul);
        list.len() == all.len() && list.iter().all(|endpoint| endpoint.condition == condition)
    };
    wait_until("all checks pass", || all_are(Condition::Passing));
    server.kill();
    wait_until("all checks fail", || all_are(Condition::Critical));
    // Also with these, whoever drains says so.
    let (registrar, registration) = all.first().unwrap();
    registrar
        .renew(registration, Condition::Draining)
        .await
        .unwrap();
    becomes(&consul, Some(Condition::Draining));
}

/// Answers any GET, and the gRPC health protocol for `shop.Orders`, whose name must be in the request.
const SERVER: &str = r#"
import sys, http.server, concurrent.futures, grpc
class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method != "/grpc.health.v1.Health/Check":
            return None
        answer = lambda asked, context: b"\x08\x01" if asked == b"\x0a\x0bshop.Orders" else b"\x08\x02"
        return grpc.unary_unary_rpc_method_handler(answer)
server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((Handler(),))
server.add_insecure_port("127.0.0.1:" + sys.argv[2])
server.start()
class Get(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Get).serve_forever()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_comes_back_without_data_is_told_again() {
    let dir = TempDir::new().unwrap();
    let Some(mut consul) = Consul::start(dir.path()) else {
        return;
    };
    let config = RegistrarConfig::default().with_check(AgentCheck::Ttl(Duration::from_secs(2)));
    let registrar = registrar(&consul, config);
    let registration = registration();
    let (_condition, condition) = watch::channel(Condition::Passing);
    let (state, _states) = watch::channel(RegistrationState::Pending);
    let (end, ended) = oneshot::channel::<()>();
    let until = async { drop(ended.await) };
    let random = || 7;
    let keeping = keep_registered(
        &registrar,
        &registration,
        (condition, &state),
        &random,
        until,
    );
    let faults = async {
        tokio::task::spawn_blocking(move || {
            becomes(&consul, Some(Condition::Passing));
            consul.kill();
            consul.start_again();
            becomes(&consul, Some(Condition::Passing));
            end.send(()).unwrap();
            becomes(&consul, None);
        })
        .await
        .unwrap();
    };
    tokio::join!(keeping, faults);
    assert_eq!(*state.borrow(), RegistrationState::Deregistered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_the_right_to_write_registers_nothing() {
    let dir = TempDir::new().unwrap();
    let Some(consul) = Consul::start_with_acls(dir.path()) else {
        return;
    };
    let registration = registration();
    for (policy, is_allowed) in [("read", false), ("write", true)] {
        let rules = format!("service \"orders\" {{ policy = \"{policy}\" }}");
        let token = consul.token(policy, &rules);
        let registrar = registrar_with(&consul, RegistrarConfig::default(), Some(token));
        let registered = registrar.register(&registration).await;
        assert_eq!(registered.is_ok(), is_allowed, "{registered:?}");
        if let Err(error) = registered {
            assert!(error.to_string().contains("Permission denied"), "{error}");
        } else {
            registrar
                .renew(&registration, Condition::Passing)
                .await
                .unwrap();
            becomes(&consul, Some(Condition::Passing));
            registrar
                .renew(&registration, Condition::Draining)
                .await
                .unwrap();
            becomes(&consul, Some(Condition::Draining));
            registrar.deregister(&registration).await.unwrap();
            becomes(&consul, None);
        }
    }
}
