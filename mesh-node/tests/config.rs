//! The configuration: what is refused and how it is said, the environment over the file, and what is never shown.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use mesh_node::config::ConfigError;
use mesh_node::config::Document;
use mesh_node::config::Encryption;
use mesh_node::config::Environment;
use mesh_node::config::HostPort;
use mesh_node::config::NodeConfig;
use mesh_node::config::RateLimitConfig;

const SECRET: &str = "q7Zk0vX3mT9bLw2RdY6uHs4NcP8eAj1G";

const MINIMAL: &str = "\
service: { id: user-service }
identity: { trust_domain: example.org, source: builtin, ca_dir: ca }
";

/// The example of the design, with what this version has of it.
const EXAMPLE: &str = r#"
service:
  id: user-service
  listen: 0.0.0.0:50051
  app: 127.0.0.1:8080
outbound:
  listen: 127.0.0.1:15001
  upstreams:
    - { service: order-service, bind: 127.0.0.1:5002 }
identity:
  trust_domain: example.org
  source: files
  cert_file: certs/user.crt
  key_file: certs/user.key
  ca_file: certs/ca.crt
security:
  encryption: hybrid
  rsa_key_size: 4096
  aes_key_size: 256
  keys_dir: keys
  key_rotation: { enabled: true, interval: 1h }
  session_timeout: 1h
auth:
  jwt: { secret: "${JWT_SECRET}", token_expiry: 1h }
discovery:
  sources:
    - { mode: static, services: [ { id: order-service, host: 10.0.0.7, port: 50051 } ] }
resilience:
  circuit_breaker: { threshold: 5, timeout: 60s, half_open_requests: 3 }
  rate_limit: { max_requests: 100, window: 60s }
  retry: { max_attempts: 3, backoff: exponential, initial_delay: 1s }
policy:
  default: deny
  rules:
    - { name: users-read-orders, from: [user-service], to: { service: order-service, methods: [GET], paths: ["/api/*"] }, action: allow }
audit: { enabled: true, path: logs/mesh-audit.log, events: [connection, message, error, key_rotation] }
metrics: { enabled: true, endpoint: /metrics }
admin: { listen: 127.0.0.1:9090 }
"#;

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect()
}

fn load(text: &str, variables: &[(&str, &str)]) -> Result<NodeConfig, ConfigError> {
    Document::parse(text, Path::new("mesh.yaml"), &environment(variables))?.config()
}

/// `MINIMAL` with `lines` behind it, the first of them line 3.
fn extended(lines: &str) -> String {
    format!("{MINIMAL}{lines}\n")
}

fn refuses(lines: &str, message: &str) {
    let error = load(&extended(lines), &[]).map(|_| lines).unwrap_err();
    assert_eq!(error.to_string(), message, "for\n{lines}");
}

#[test]
fn reads_the_example_of_the_design() {
    let config = load(EXAMPLE, &[("JWT_SECRET", SECRET)]).unwrap();
    assert_eq!(
        config.service.app,
        Some(HostPort::parse("127.0.0.1:8080").unwrap())
    );
    assert_eq!(config.auth.jwt.as_ref().unwrap().secret.expose(), SECRET);
    assert_eq!(config.spiffe_id(), "spiffe://example.org/user-service");
    let limit = &config.resilience.rate_limit.as_ref().unwrap().rates;
    assert_eq!(limit.windows.len(), 1);
    assert_eq!(
        limit.windows.first().unwrap().window,
        Duration::from_mins(1)
    );
    assert_eq!(config.policy.rules.first().unwrap().to.paths, ["/api/*"]);
}

#[test]
fn says_where_a_key_is_unknown_and_what_was_meant() {
    refuses(
        "resilience:\n  circuit_braker: {}",
        "mesh.yaml:4:3: resilience.circuit_braker: unknown key; did you mean \"circuit_breaker\"? \
         allowed here: circuit_breaker, rate_limit, retry, hedge, safe_writes, timeout, bulkhead, load_balancing, outlier_ejection, load_shedding",
    );
    refuses(
        "admin: { port: 9090 }",
        "mesh.yaml:3:10: admin.port: unknown key; allowed here: listen",
    );
    refuses(
        "policy:\n  rules:\n    - name: a\n      form: [b]",
        "mesh.yaml:6:7: policy.rules[0].form: unknown key; did you mean \"from\"? \
         allowed here: name, from, users, to, action, when, owner, reason, expires",
    );
    refuses(
        "security: { key_rotation: { intervall: 1h } }",
        "mesh.yaml:3:29: security.key_rotation.intervall: unknown key; did you mean \"interval\"? \
         allowed here: enabled, interval, identity_interval, identity_overlap",
    );
}

#[test]
fn says_which_value_is_wrong_and_what_is_allowed() {
    refuses(
        "security: { encryption: hybird }",
        "mesh.yaml:3:25: security.encryption: \"hybird\" is not known here; did you mean \"hybrid\"? \
         allowed here: hybrid, mtls",
    );
    refuses(
        "security: { rsa_key_size: 1024 }",
        "mesh.yaml:3:27: security.rsa_key_size: \"1024\" is not an RSA key size; allowed here: 2048, 3072, 4096",
    );
    refuses(
        "resilience: { timeout: 30 }",
        "mesh.yaml:3:24: resilience.timeout: \"30\" is not a duration; \
         write a number and a unit, such as 500ms, 30s or 1h",
    );
    refuses(
        "drain: { timeout: 0s }",
        "mesh.yaml:3:19: drain.timeout: \"0s\" is not allowed; it must be longer than 0s",
    );
    refuses(
        "admin: { listen: localhost }",
        "mesh.yaml:3:18: admin.listen: \"localhost\" is not an IP address and port; write it like 127.0.0.1:9090",
    );
    refuses(
        "resilience: { circuit_breaker: { threshold: 0 } }",
        "mesh.yaml:3:45: resilience.circuit_breaker.threshold: \"0\" is out of range; \
         expected a whole number from 1 to 4294967295",
    );
    refuses(
        "resilience: { circuit_breaker: { threshold: five } }",
        "mesh.yaml:3:45: resilience.circuit_breaker.threshold: \"five\" is not a number; \
         expected a whole number from 1 to 4294967295",
    );
    refuses(
        "resilience: { retry: { budget: 20 } }",
        "mesh.yaml:3:32: resilience.retry.budget: \"20\" is not a share; write a number from 0 to 1",
    );
    refuses(
        "audit: { enabled: yes }",
        "mesh.yaml:3:19: audit.enabled: \"yes\" is neither true nor false",
    );
    refuses(
        "discovery:\n  sources:\n    - mode: spire",
        "mesh.yaml:5:13: discovery.sources[0].mode: \"spire\" is not in this version; allowed here: static, file, consul, etcd, dns, xds",
    );
    refuses(
        "discovery: { sources: [ { services: [] } ] }",
        "mesh.yaml:3:25: discovery.sources[0]: the required key \"mode\" is missing",
    );
    refuses(
        "discovery: { sources: [ { mode: static, servics: [] } ] }",
        "mesh.yaml:3:41: discovery.sources[0].servics: unknown key; did you mean \"services\"? allowed here: services",
    );
    refuses(
        "discovery: { sources: [ { mode: static, services: [ { id: Order_, host: a, port: 1 } ] } ] }",
        "mesh.yaml:3:59: discovery.sources[0].services[0].id: \"Order_\" is not a service name; \
         write lower-case letters, digits, '-', '_' and '.', such as order-service",
    );
}

#[test]
fn says_what_kind_of_value_belongs_there() {
    refuses(
        "admin: 127.0.0.1:9090",
        "mesh.yaml:3:8: admin: a single value stands here; expected a map of keys and values",
    );
    refuses(
        "admin: [a]",
        "mesh.yaml:3:8: admin: a list stands here; expected a map of keys and values",
    );
    refuses(
        "log: { level: [info] }",
        "mesh.yaml:3:15: log.level: a list stands here; expected one of its names",
    );
    refuses(
        "policy: { rules: all }",
        "mesh.yaml:3:18: policy.rules: a single value stands here; expected a list",
    );
    refuses(
        "auth:",
        "mesh.yaml:3:5: auth: has no value; give it one or remove the key",
    );
    refuses(
        "resilience: { rate_limit: 100 }",
        "mesh.yaml:3:27: resilience.rate_limit: a single value stands here; \
         expected { max_requests: …, window: … } or a list of these",
    );
    refuses(
        "resilience: { rate_limit: [] }",
        "mesh.yaml:3:27: resilience.rate_limit: needs 1 to 4 windows, such as { max_requests: 100, window: 60s }",
    );
    refuses(
        "resilience: { rate_limit: { max_requests: 100 } }",
        "mesh.yaml:3:27: resilience.rate_limit: the required key \"window\" is missing",
    );
}

#[test]
fn says_which_required_key_is_missing() {
    let check =
        |text: &str, message: &str| assert_eq!(load(text, &[]).unwrap_err().to_string(), message);
    check("", "mesh.yaml:1:1: the required key \"service\" is missing");
    check(
        "# nothing\n",
        "mesh.yaml:1:1: the required key \"service\" is missing",
    );
    check(
        "service: { listen: 0.0.0.0:1 }",
        "mesh.yaml:1:10: service: the required key \"id\" is missing",
    );
    check(
        "service: { id: a }\nidentity:\n  trust_domain: example.org\n  cert_file: a\n",
        "mesh.yaml:3:3: identity: the required key \"key_file\" is missing; `source: files` needs it",
    );
    check(
        "service: { id: a }\nidentity: { trust_domain: example.org, source: builtin, ca_dir: ca, ca_file: a }\n",
        "mesh.yaml:2:78: identity.ca_file: has no meaning with `source: builtin`; remove it or change the source",
    );
    check(
        "service: { id: a }\nidentity: { trust_domain: example.org, source: spire }\n",
        "mesh.yaml:2:48: identity.source: \"spire\" is not in this version; allowed here: files, workload_api, builtin, consul",
    );
}

#[test]
fn refuses_keys_that_contradict_each_other() {
    refuses(
        "outbound:\n  upstreams:\n    - { service: a, bind: 127.0.0.1:5002 }\n    - { service: b, bind: 127.0.0.1:5002 }",
        "mesh.yaml:6:27: outbound.upstreams[1].bind: 127.0.0.1:5002 is taken by outbound.upstreams[0].bind \
         (127.0.0.1:5002); every listener needs an address of its own",
    );
    refuses(
        "admin: { listen: 127.0.0.1:50051 }",
        "mesh.yaml:3:18: admin.listen: 127.0.0.1:50051 is taken by service.listen (0.0.0.0:50051); \
         every listener needs an address of its own",
    );
    refuses(
        "resilience:\n  retry:\n    initial_delay: 20s",
        "mesh.yaml:5:5: resilience.retry.max_delay: must not be shorter than initial_delay",
    );
    // Whoever shares the secret of the tokens could write any group into one.
    refuses(
        "policy: { rules: [ { name: a, from: [b, 'group:admin'], to: { service: user-service }, action: allow } ] }",
        "mesh.yaml:3:41: policy.rules[0].from[1]: nobody can match: no credentials of users are verified \
         here; add auth.issuers, auth.consumers or auth.api_keys, or name services or SPIFFE ids instead",
    );
    for (auth, why) in [
        (
            "issuers: [ { issuer: a } ]",
            "auth.issuers[0]: needs one of \"jwks_url\" and \"jwks_file\"",
        ),
        (
            "issuers: [ { issuer: a, jwks_file: b, roles: [ { role: r, claim: c } ] } ]",
            "auth.issuers[0].roles[0]: needs one of \"equals\" and \"contains\"",
        ),
        (
            "consumers: [ { name: a, key: k } ]",
            "auth.consumers[0]: needs both of \"key\" and \"secret_file\", or none",
        ),
        (
            "api_keys: [ { consumer: a, hash: 'sha256:0123' } ]",
            "auth.api_keys[0].hash: \"sha256:0123\" is not the hash of an API key; \
             `mesh-node token api-key` prints one",
        ),
        // One issuer never has both kinds of key.
        (
            "issuers: [ { issuer: a, jwks_file: b } ], consumers: [ { name: n, key: a, secret_file: s } ]",
            "auth.consumers[0].key: is the name of another issuer, consumer or consumer's key too; \
             each must be there once",
        ),
        (
            "api_key_header: authorization",
            "auth.api_key_header: \"authorization\" is not a header for API keys; \
             write a lower-case name of its own, such as x-api-key",
        ),
    ] {
        let error = load(&extended(&format!("auth: {{ {auth} }}")), &[]).unwrap_err();
        assert!(error.to_string().ends_with(why), "{error}");
    }
    let elsewhere = "service: { id: a, spiffe_id: 'spiffe://other.org/a' }\n\
                     identity: { trust_domain: example.org, source: builtin, ca_dir: ca }";
    assert_eq!(
        load(elsewhere, &[]).unwrap_err().to_string(),
        "mesh.yaml:1:30: service.spiffe_id: \"spiffe://other.org/a\" is not in the trust domain example.org; \
         it must begin with spiffe://example.org/"
    );
}

#[test]
fn refuses_what_is_not_one_plain_document() {
    refuses(
        "service: { id: b }",
        "mesh.yaml:3:1: the key \"service\" is here twice; it is also on line 1",
    );
    refuses(
        "---\na: b",
        "mesh.yaml:3:1: a second document begins here; a configuration is one document",
    );
    refuses(
        "log: !!str info",
        "mesh.yaml:3:12: tags such as !!str are not supported; remove it",
    );
    refuses("? [a]\n: b", "mesh.yaml:3:3: a key must be a plain name");
    let broken = load(&extended("log: { level: info"), &[])
        .unwrap_err()
        .to_string();
    assert!(
        broken.contains("mesh.yaml:") && broken.contains("is not YAML"),
        "{broken}"
    );
}

#[test]
fn an_alias_bomb_is_refused_quickly() {
    let bomb = |level: u32| {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        format!("a{level}: &a{level} [{aliases}]\n")
    };
    let text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned()
        + &(1..10).map(bomb).collect::<String>();
    let error = load(&text, &[]).unwrap_err().to_string();
    assert!(
        error.ends_with("the file is too large; 200000 values are allowed"),
        "{error}"
    );
}

#[test]
fn an_alias_repeats_a_value() {
    let text = extended("resilience:\n  timeout: &t 20s\n  circuit_breaker: { timeout: *t }");
    let config = load(&text, &[]).unwrap();
    assert_eq!(
        config.resilience.circuit_breaker.timeout,
        Duration::from_secs(20)
    );
}

#[test]
fn several_windows_hold_at_once() {
    let windows = "[ { max_requests: 100, window: 1m }, { max_requests: 10000, window: 1h } ]";
    let config = load(
        &extended(&format!("resilience: {{ rate_limit: {windows} }}")),
        &[],
    )
    .unwrap();
    assert_eq!(
        config.resilience.rate_limit,
        Some(RateLimitConfig::recommended().into())
    );
}

#[test]
fn variables_fill_values_and_never_add_keys() {
    let text = extended("log: { level: \"${LEVEL:-warn}\" }");
    assert_eq!(load(&text, &[]).unwrap().log.level.as_str(), "warn");
    assert_eq!(
        load(&text, &[("LEVEL", "debug")])
            .unwrap()
            .log
            .level
            .as_str(),
        "debug"
    );
    let injected = load(&text, &[("LEVEL", "info\nadmin: { listen: 0.0.0.0:1 }")]).unwrap_err();
    assert_eq!(
        injected.to_string(),
        "mesh.yaml:3:15: log.level: the value of ${LEVEL} is not known here; allowed here: error, warn, info, debug, trace"
    );
    refuses(
        "log: { level: \"${LEVEL}\" }",
        "mesh.yaml:3:15: log.level: environment variable LEVEL is not set; set it, or write ${LEVEL:-default}",
    );
    refuses(
        "log: { \"${KEY}\": info }",
        "mesh.yaml:3:8: log.${KEY}: unknown key; allowed here: level",
    );
}

#[test]
fn the_environment_wins_over_the_file() {
    let text = extended("security: { encryption: hybrid }\nservice_: 1")
        .replace("service_: 1", "log: { level: warn }");
    let config = load(
        &text,
        &[
            ("MESH_SECURITY_ENCRYPTION", "mtls"),
            ("MESH_SERVICE_APP", "127.0.0.1:7000"),
            ("MESH_RESILIENCE_CIRCUIT_BREAKER_THRESHOLD", "9"),
            ("MESH_LOG_LEVEL", ""),
            ("SERVICE_MESH_SPIFFE_ID", "spiffe://example.org/other"),
            ("JWT_SECRET", SECRET),
            ("PATH", "/bin"),
            ("MESH_UNRELATED", "x"),
        ],
    )
    .unwrap();
    assert_eq!(config.security.encryption, Encryption::Mtls);
    assert_eq!(
        config.service.app,
        Some(HostPort::parse("127.0.0.1:7000").unwrap())
    );
    assert_eq!(config.resilience.circuit_breaker.threshold.get(), 9);
    assert_eq!(
        config.log.level.as_str(),
        "warn",
        "an empty variable counts as not set"
    );
    assert_eq!(config.spiffe_id(), "spiffe://example.org/other");
    assert_eq!(config.auth.jwt.unwrap().secret.expose(), SECRET);
}

#[test]
fn the_names_of_other_meshes_set_files_and_lose_to_ours() {
    let text = "service: { id: a }\nidentity: { trust_domain: example.org }\n";
    let files = [
        ("MTLS_CERT_FILE", "a.crt"),
        ("MTLS_KEY_FILE", "a.key"),
        ("MTLS_CA_FILE", "/etc/ca.crt"),
    ];
    let mut variables = files.to_vec();
    variables.push(("MESH_IDENTITY_CERT_FILE", "b.crt"));
    let document = Document::parse(
        text,
        Path::new("/srv/mesh/mesh.yaml"),
        &environment(&variables),
    )
    .unwrap();
    let identity = document.config().unwrap().identity;
    assert_eq!(
        identity.cert_file.as_deref(),
        Some(Path::new("/srv/mesh/b.crt"))
    );
    assert_eq!(
        identity.key_file.as_deref(),
        Some(Path::new("/srv/mesh/a.key"))
    );
    assert_eq!(identity.ca_file.as_deref(), Some(Path::new("/etc/ca.crt")));
}

#[test]
fn a_misspelt_override_is_refused() {
    let check = |variable: &str, text: &str, message: &str| {
        assert_eq!(
            load(MINIMAL, &[(variable, text)]).unwrap_err().to_string(),
            message
        );
    };
    check(
        "MESH_SECURITY_ENCRYPTON",
        "mtls",
        "environment variable MESH_SECURITY_ENCRYPTON: names no key; did you mean \"MESH_SECURITY_ENCRYPTION\"?",
    );
    check(
        "MESH_RESILIENCE_TIMEOUT",
        "soon",
        "environment variable MESH_RESILIENCE_TIMEOUT: resilience.timeout: the value of MESH_RESILIENCE_TIMEOUT \
         is not a duration; write a number and a unit, such as 500ms, 30s or 1h",
    );
    check(
        "EXTERNAL_SERVICES_ORDERS_SPIFFE_ID",
        "spiffe://example.org/orders",
        "environment variable EXTERNAL_SERVICES_ORDERS_SPIFFE_ID: no endpoint of orders is known; \
         set EXTERNAL_SERVICES_ORDERS_ADDRESS too",
    );
}

#[test]
fn external_services_replace_the_endpoints_of_the_file() {
    let text = extended(
        "discovery: { sources: [ { mode: static, services: [ { id: order-service, host: 10.0.0.7, port: 1 }, \
         { id: other, host: 10.0.0.8, port: 1 } ] } ] }",
    );
    let variables = [
        ("EXTERNAL_SERVICES_ORDER_SERVICE_ADDRESS", "[::1]:50051"),
        (
            "EXTERNAL_SERVICES_ORDER_SERVICE_SPIFFE_ID",
            "spiffe://example.org/orders",
        ),
    ];
    let config = load(&text, &variables).unwrap();
    let services: Vec<_> = config.discovery.static_endpoints().collect();
    let orders: Vec<_> = services
        .iter()
        .filter(|endpoint| endpoint.id == "order-service")
        .collect();
    assert_eq!(orders.len(), 1);
    assert_eq!(
        (orders[0].host.as_str(), orders[0].port.get()),
        ("::1", 50051)
    );
    assert_eq!(
        orders[0].spiffe_id.as_deref(),
        Some("spiffe://example.org/orders")
    );
    assert_eq!(services.len(), 2);
}

#[test]
fn weak_secrets_are_refused_without_being_shown() {
    // threat 20
    let check = |secret: &str, why: &str| {
        let in_file = load(
            &extended(&format!("auth: {{ jwt: {{ secret: {secret:?} }} }}")),
            &[],
        )
        .unwrap_err();
        assert_eq!(
            in_file.to_string(),
            format!("mesh.yaml:3:24: auth.jwt.secret: the value {why}")
        );
        let text = extended("auth: { jwt: { secret: \"${OUR_SECRET}\" } }");
        let substituted = load(&text, &[("OUR_SECRET", secret)])
            .unwrap_err()
            .to_string();
        assert!(
            substituted.ends_with(why) && (secret.is_empty() || !substituted.contains(secret)),
            "{substituted}"
        );
    };
    check(
        "tiny-one",
        "is shorter than 32 bytes; make one with `openssl rand -base64 48`",
    );
    check(
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "is too regular to be a secret; make one with `openssl rand -base64 48`",
    );
    check(
        "changeme-Changeme-changeme-changeme-42",
        "is a placeholder, not a secret; make one with `openssl rand -base64 48`",
    );
}

#[test]
fn secrets_are_never_shown() {
    // threat 20
    let config = load(EXAMPLE, &[("JWT_SECRET", SECRET)]).unwrap();
    let document = Document::parse(
        EXAMPLE,
        Path::new("mesh.yaml"),
        &environment(&[("JWT_SECRET", SECRET)]),
    )
    .unwrap();
    for shown in [
        config.redacted().to_string(),
        format!("{config:?}"),
        format!("{document:?}"),
    ] {
        assert!(!shown.contains(SECRET), "{shown}");
    }
    assert_eq!(config.redacted()["auth"]["jwt"]["secret"], "[redacted]");
    assert_eq!(config.redacted()["security"]["rsa_key_size"], 4096);
}

#[test]
fn a_secret_can_stand_in_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (file, secret_file) = (
        folder.path().join("mesh.yaml"),
        folder.path().join("jwt.secret"),
    );
    std::fs::write(
        &file,
        extended("auth: { jwt: { secret_file: jwt.secret } }"),
    )
    .unwrap();
    let missing = NodeConfig::load(&file, &Environment::new())
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("mesh.yaml:3:29: auth.jwt.secret_file: could not read "),
        "{missing}"
    );
    // threat 20
    std::fs::write(&secret_file, "too short\n").unwrap();
    // threat 61
    let may_read = |mode| {
        std::fs::set_permissions(&secret_file, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    may_read(0o640);
    let open = NodeConfig::load(&file, &Environment::new()).unwrap_err();
    assert!(open.to_string().contains("mode 640"), "{open}");
    may_read(0o600);
    let weak = NodeConfig::load(&file, &Environment::new())
        .unwrap_err()
        .to_string();
    assert!(
        weak.contains("is shorter than 32 bytes") && !weak.contains("too short"),
        "{weak}"
    );
    std::fs::write(&secret_file, format!("{SECRET}\n")).unwrap();
    let config = NodeConfig::load(&file, &Environment::new()).unwrap();
    assert_eq!(config.auth.jwt.unwrap().secret.expose(), SECRET);
    let other = "0Zk1vX4mT5bLw6RdY7uHs8NcP9eAj2Gq";
    let overridden = NodeConfig::load(&file, &environment(&[("JWT_SECRET", other)])).unwrap();
    assert_eq!(overridden.auth.jwt.unwrap().secret.expose(), other);

    refuses(
        "auth: { jwt: { token_expiry: 1h } }",
        "mesh.yaml:3:14: auth.jwt: the required key \"secret\", \"secret_file\" or \"secrets\" is missing",
    );
    refuses(
        &format!("auth: {{ jwt: {{ secret: {SECRET}, secret_file: a }} }}"),
        "mesh.yaml:3:71: auth.jwt.secret_file: and secret exclude each other; remove one of them",
    );
}

#[test]
fn an_unreadable_file_is_an_error() {
    // threat 54
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("mesh.yaml");
    let error = NodeConfig::load(&missing, &Environment::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}: could not read the configuration", missing.display())
    );
    assert!(std::error::Error::source(&error).is_some());
    std::fs::write(&missing, MINIMAL).unwrap();
    let config = NodeConfig::load(&missing, &Environment::new()).unwrap();
    assert_eq!(config.security.keys_dir, folder.path().join("keys"));
}
