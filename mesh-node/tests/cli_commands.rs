//! The program itself, run as a person or a script would: what it prints, what it writes, and its exit codes.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::SystemTime;

use serde_json::Value;
use tempfile::TempDir;

/// A folder that the program runs in.
struct Place(TempDir);

/// What one run gave.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    }

    /// Runs the program with the words of `line`, and nothing in its environment.
    fn run(&self, line: &str) -> Ran {
        self.run_with(line, &[])
    }

    fn run_with(&self, line: &str, environment: &[(&str, &str)]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-node"));
        command
            .args(line.split_whitespace())
            .current_dir(self.path())
            .env_clear()
            .envs(environment.iter().copied());
        let output = command.output().unwrap();
        Ran {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    fn done(self) -> Self {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self
    }

    fn failed(self, code: i32, message: &str) -> Self {
        assert_eq!(
            (self.code, self.err.trim_end()),
            (code, message),
            "{}",
            self.out
        );
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

const FILES: &str = "\
service: { id: orders }
identity: { trust_domain: example.org, cert_file: certs/orders.crt, key_file: certs/orders.key, ca_file: certs/ca.crt }
";

#[test]
fn what_init_writes_passes_the_check() {
    let place = Place::new();
    let init = place.run("init --dir mesh --service users --json").done();
    assert_eq!(init.json()["next"], "mesh-node run -c mesh/mesh.yaml");
    let check = place.run("check -c mesh/mesh.yaml --json").done().json();
    assert_eq!(check["ok"], true);
    assert_eq!(
        check["checked"]["service"],
        "spiffe://example.org/users, on 0.0.0.0:50051"
    );
    assert_eq!(place.mode("mesh/ca/ca.key"), 0o600);
    assert_eq!(place.mode("mesh/jwt.secret"), 0o600);
    // threat 20
    let secret = place.read("mesh/jwt.secret");
    let text = place.run("check -c mesh/mesh.yaml").done().out;
    assert!(!text.contains(secret.trim()) && secret.trim().len() == 64);
}

#[test]
fn init_replaces_nothing_unless_told_to() {
    let place = Place::new();
    place.run("init").done();
    let before = place.read("ca/ca.crt");
    place
        .run("init")
        .failed(1, "error: mesh.yaml is there already; --force replaces it");
    assert_eq!(place.read("ca/ca.crt"), before);
    place.run("init --force").done();
    assert_ne!(place.read("ca/ca.crt"), before);
    place.run("init --dir other --service Bad_").failed(
        2,
        "error: other/mesh.yaml:5:7: service.id: \"Bad_\" is not a service name; \
         write lower-case letters, digits, '-', '_' and '.', such as order-service",
    );
    assert!(
        !place.path().join("other").exists(),
        "nothing is left of a refused init"
    );
}

#[test]
fn a_wrong_configuration_is_code_2_with_one_message() {
    // threat 53
    let place = Place::new();
    place.write("mesh.yaml", "service: { id: a }\nidentity: { trust_domain: b, source: builtin, ca_dir: ca }\nadmn: {}\n");
    let message = "mesh.yaml:3:1: admn: unknown key; did you mean \"admin\"? allowed here: service, outbound, identity, workload_api, rate_limit_service, \
                   security, auth, discovery, resilience, routes, policy, audit, access_log, metrics, admin, log, drain, runtime";
    place.run("check").failed(2, &format!("error: {message}"));
    let json = place.run("check --json");
    assert_eq!(
        (json.code, json.json()["error"].as_str()),
        (2, Some(message))
    );
    assert_eq!(json.json()["place"]["line"], 3);
    // threat 54
    place.run("check -c none.yaml").failed(
        2,
        "error: none.yaml: could not read the configuration: No such file or directory (os error 2)",
    );
    assert_eq!(place.run("check --verbose").code, 2);
    assert_eq!(place.run("chek").code, 2);
    assert_eq!(place.run("--help").code, 0);
}

#[test]
fn the_environment_reaches_the_configuration() {
    let place = Place::new();
    place.run("init").done();
    let check = place
        .run_with("check --json", &[("MESH_SERVICE_LISTEN", "127.0.0.1:7")])
        .done()
        .json();
    assert_eq!(
        check["checked"]["service"],
        "spiffe://example.org/my-service, on 127.0.0.1:7"
    );
    place.run_with("check", &[("MESH_SERVICE_LISTN", "127.0.0.1:7")]).failed(
        2,
        "error: environment variable MESH_SERVICE_LISTN: names no key; did you mean \"MESH_SERVICE_LISTEN\"?",
    );
}

#[test]
fn issued_certificates_pass_the_check_and_strange_ones_do_not() {
    let place = Place::new();
    place.run("ca init --trust-domain example.org").done();
    assert_eq!((place.mode("ca/ca.key"), place.mode("ca")), (0o600, 0o700));
    place
        .run("ca init --trust-domain example.org")
        .failed(1, "error: ca/ca.crt is there already; --force replaces it");
    let issued = place
        .run("ca issue orders --lifetime 48h --dns orders.local --ip 10.0.0.1 --json")
        .done()
        .json();
    assert_eq!(issued["spiffe_id"], "spiffe://example.org/orders");
    assert_eq!(place.mode("certs/orders.key"), 0o600);
    place.write("mesh.yaml", FILES);
    let check = place.run("check --json").done().json();
    assert_eq!(check["warnings"].as_array().unwrap().len(), 0, "{check}");

    place.run("ca issue users --lifetime 48h").done();
    place.write("mesh.yaml", &FILES.replace("orders.crt", "users.crt"));
    let mixed = place.run("check");
    assert_eq!(mixed.code, 2);
    assert!(
        mixed
            .err
            .contains("mesh.yaml:2:51: identity.cert_file: certificate and key are not usable"),
        "{}",
        mixed.err
    );

    place.write("mesh.yaml", &FILES.replace("certs/orders", "certs/users"));
    place.run("check").failed(
        2,
        "error: mesh.yaml:2:51: identity.cert_file: the certificate is of spiffe://example.org/users, \
         not of spiffe://example.org/orders",
    );

    place
        .run("ca init --trust-domain example.org --dir ca2")
        .done();
    place.write("mesh.yaml", &FILES.replace("certs/ca.crt", "ca2/ca.crt"));
    let stranger = place.run("check");
    assert_eq!(stranger.code, 2);
    assert!(
        stranger
            .err
            .contains("identity.cert_file: peers would refuse the certificate"),
        "{}",
        stranger.err
    );

    place.write("mesh.yaml", &FILES.replace("certs/ca.crt", "gone.crt"));
    place.run("check").failed(
        2,
        "error: mesh.yaml:2:106: identity.ca_file: could not read gone.crt: No such file or directory (os error 2)",
    );
    let elsewhere = place.run("ca issue spiffe://other.org/a");
    assert_eq!(elsewhere.code, 1);
    assert_eq!(place.run("ca issue ../a").code, 2);
    assert_eq!(
        place.run("ca init --trust-domain EXAMPLE --dir ca3").code,
        2
    );
}

#[test]
fn the_check_warns_of_what_is_allowed_but_unwise() {
    let place = Place::new();
    place.run("ca init --trust-domain example.org").done();
    place.run("ca issue orders").done();
    let upstream = "service: { id: orders, app: 127.0.0.1:1 }\noutbound: { upstreams: [ { service: x, bind: 127.0.0.1:2 } ] }";
    place.write(
        "mesh.yaml",
        &FILES.replace("service: { id: orders }", upstream),
    );
    let warnings = place.run("check --json").done().json()["warnings"].to_string();
    for part in [
        "the certificate ends at",
        "policy.rules is empty",
        "names x, which no source",
    ] {
        assert!(warnings.contains(part), "{part} in {warnings}");
    }
    assert!(!warnings.contains("service.tcp"), "{warnings}");
}

#[test]
fn the_check_warns_of_registries_that_others_can_change_and_of_what_they_may_say() {
    let place = Place::new();
    place.run("ca init --trust-domain example.org").done();
    place.run("ca issue orders").done();
    let near = "{ mode: consul, name: near, url: 'http://127.0.0.1:8500', token: t }";
    let far = "{ mode: consul, name: far, url: 'http://10.0.0.7:8500', token: 2f1c-secret }";
    let named = "{ mode: etcd, name: named, endpoints: ['http://localhost:2379'], \
                 may_name_identities: ['spiffe://example.org/*'] }";
    let plain = "{ mode: xds, name: plain, servers: ['http://xds.example.org:18000'] }";
    let file = format!("{FILES}\ndiscovery: {{ sources: [ {near}, {far}, {named}, {plain} ] }}");
    place.write("mesh.yaml", &file);
    let answer = place.run("check --json").done().json();
    let warnings: Vec<_> = answer["warnings"].as_array().unwrap().iter().collect();
    let about = |name: &str| {
        let of = |warning: &&&Value| warning.to_string().contains(name);
        let mut found = warnings.iter().filter(of).map(ToString::to_string);
        (found.next().unwrap_or_default(), found.count())
    };
    let changed = "whoever is on the way can change what it says";
    assert_eq!(about("near"), (String::new(), 0));
    let (far, 0) = about("far") else {
        panic!("{warnings:?}")
    };
    assert!(
        far.contains(&format!("{changed}, and with it our secret")) && !far.contains("2f1c"),
        "{far}"
    );
    let (plain, 0) = about("plain") else {
        panic!("{warnings:?}")
    };
    assert!(
        plain.contains(changed) && !plain.contains("our secret"),
        "{plain}"
    );
    let (named, 0) = about("named") else {
        panic!("{warnings:?}")
    };
    assert!(
        named.contains("can lead calls for any service to spiffe://example.org/*"),
        "{named}"
    );
    let found = answer["checked"].to_string();
    assert!(
        found.contains("near, far, named, plain is asked when the node runs"),
        "{found}"
    );
}

#[test]
fn the_check_says_what_does_not_protect_a_tcp_port() {
    let place = Place::new();
    place.run("ca init --trust-domain example.org").done();
    place.run("ca issue orders").done();
    let tcp = "service: { id: orders, tcp: [ { listen: 127.0.0.1:7, app: 127.0.0.1:1 } ] }";
    let file = FILES.replace("service: { id: orders }", tcp);
    let jwt = format!(
        "{file}\nauth: {{ jwt: {{ secret: 9f2c51d07be84c3aa6d15e0b7f3c8e1294ad60b5c7f1e83d }} }}"
    );
    let mtls = "\nsecurity: { encryption: mtls }";
    for (file, expected) in [
        (
            file.clone(),
            "no session (security.encryption: hybrid) on this port",
        ),
        (jwt.clone(), "no service token (auth.jwt) and no session"),
        (jwt + mtls, "no service token (auth.jwt) on this port"),
        (file + mtls, ""),
    ] {
        place.write("mesh.yaml", &file);
        let warnings = place.run("check --json").done().json()["warnings"].to_string();
        assert!(warnings.contains(expected), "{expected} in {warnings}");
        assert_eq!(warnings.contains("service.tcp on"), !expected.is_empty());
    }
}

// threat 61
#[test]
fn a_key_that_others_may_read_is_refused_by_check_and_start() {
    let place = Place::new();
    place.run("ca init --trust-domain example.org").done();
    place.run("ca issue orders").done();
    place.write("mesh.yaml", FILES);
    for (key, mode) in [("certs/orders.key", 0o644), ("certs/orders.key", 0o640)] {
        fs::set_permissions(place.path().join(key), fs::Permissions::from_mode(mode)).unwrap();
        for command in ["check", "run"] {
            let refused = place.run(command);
            assert_eq!(refused.code, 2, "{command}");
            let expected = format!("{key} has mode {mode:04o}, so that others may read");
            assert!(refused.err.contains(&expected), "{}", refused.err);
        }
    }
}

#[test]
fn a_policy_that_cannot_be_enforced_is_refused_at_its_rule() {
    let place = Place::new();
    place.run("init").done();
    let rule = "policy:\n  rules:\n    - { name: r, from: [users], to: { service: orders, methods: [get] }, action: allow }\n";
    let config = place
        .read("mesh.yaml")
        .replace("policy:\n  default: deny\n", rule);
    place.write("mesh.yaml", &config);
    let check = place.run("check");
    assert_eq!(check.code, 2);
    assert!(
        check
            .err
            .contains(": policy.rules[0]: is not a policy that can be enforced: rule r: "),
        "{}",
        check.err
    );
}

#[test]
fn tokens_are_issued_and_verified() {
    let place = Place::new();
    place.run("init").done();
    let issued = place
        .run("token issue -c mesh.yaml --subject users --audience orders --group admin --json")
        .done();
    let token = issued.json()["token"].as_str().unwrap().to_owned();
    let said = place
        .run(&format!(
            "token verify {token} -c mesh.yaml --audience orders --json"
        ))
        .done()
        .json();
    assert_eq!(said["subject"], "spiffe://example.org/users");
    assert_eq!(said["groups"][0], "admin");
    let by_file = format!(
        "token verify {token} --secret-file jwt.secret --issuer example.org --audience orders"
    );
    place.run(&by_file).done();

    let elsewhere = place.run(&format!(
        "token verify {token} -c mesh.yaml --audience users"
    ));
    assert_eq!(elsewhere.code, 1);
    assert!(
        elsewhere.err.starts_with("error: the token is not valid: "),
        "{}",
        elsewhere.err
    );
    let tampered = place.run(&format!(
        "token verify {token}x -c mesh.yaml --audience orders --json"
    ));
    assert_eq!(
        (tampered.code, tampered.json()["ok"].as_bool()),
        (1, Some(false))
    );
    assert_eq!(
        place
            .run("token issue --subject users --audience orders")
            .code,
        2,
        "no secret is named"
    );
    assert_eq!(
        place
            .run("token issue -c mesh.yaml --subject /x --audience orders")
            .code,
        2
    );
    // threat 20
    place.write("weak.secret", "0000000000000000000000000000000000000000\n");
    let weak = place.run(
        "token issue --secret-file weak.secret --issuer i --subject spiffe://a/b --audience c",
    );
    assert_eq!(weak.code, 1);
    assert!(
        weak.err.starts_with("error: the secret is not usable: "),
        "{}",
        weak.err
    );
}

#[test]
fn an_audit_log_is_verified_against_tampering_and_cuts() {
    let place = Place::new();
    let path = place.path().join("audit.log");
    let clock = || SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
    let (log, driver) = mesh_audit::open(
        mesh_audit::Config::new(&path),
        mesh_audit::OsFileSystem,
        clock,
    )
    .unwrap();
    let writer = std::thread::spawn(move || driver.run());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for status in [200_u16, 403] {
        let event = mesh_audit::Event::new(mesh_audit::EventKind::Message).with("status", status);
        runtime.block_on(log.append(event)).unwrap();
    }
    drop(log);
    writer.join().unwrap();

    let report = place.run("audit verify audit.log --json").done().json();
    assert_eq!(report["records"], 3);
    let head = report["head"].as_str().unwrap().to_owned();
    place
        .run(&format!("audit verify audit.log --expect-head {head}"))
        .done();

    let whole = place.read("audit.log");
    place.write("audit.log", &whole.replace("403", "200"));
    let tampered = place.run("audit verify audit.log");
    assert_eq!(tampered.code, 1);
    assert!(
        tampered
            .err
            .contains("audit.log does not verify: the audit log is damaged at line 3"),
        "{}",
        tampered.err
    );
    let cut: String = whole.split_inclusive('\n').take(2).collect();
    place.write("audit.log", &cut);
    place.run("audit verify audit.log").done();
    assert_eq!(
        place
            .run(&format!("audit verify audit.log --expect-at-least {head}"))
            .code,
        1
    );
    assert_eq!(
        place
            .run("audit verify audit.log --expect-head nonsense")
            .code,
        2
    );
    place.run("audit verify none.log").failed(
        1,
        "error: could not read none.log: No such file or directory (os error 2)",
    );
}

#[test]
fn the_schema_and_completions_are_printed() {
    let place = Place::new();
    let schema = place.run("schema").done().json();
    assert_eq!(
        schema["properties"]["service"]["$ref"],
        "#/$defs/ServiceConfig"
    );
    assert!(
        place
            .run("completions bash")
            .done()
            .out
            .contains("mesh-node")
    );
    assert!(
        place
            .run("completions zsh")
            .done()
            .out
            .contains("#compdef mesh-node")
    );
}
