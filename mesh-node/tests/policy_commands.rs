//! `explain` and `policy`, run as a person or a script would: what they print, and their exit codes.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::SystemTime;

use http::Request;
use mesh_audit::Config;
use mesh_audit::Event;
use mesh_audit::EventKind;
use mesh_audit::OsFileSystem;
use mesh_auth::caller::Caller;
use mesh_auth::policy::Facts;
use mesh_auth::policy::Needs;
use mesh_auth::policy::Query;
use mesh_auth::request::CanonicalRequest;
use mesh_auth::request::Limits;
use mesh_auth::spiffe::SpiffeId;
use serde_json::Value;
use tempfile::TempDir;

/// A folder that the program runs in, with a configuration.
struct Place(TempDir);

/// What one run gave.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

const RULES: &str = "\
rules:
  - name: web-reads
    from: [web]
    to: { service: orders, methods: [GET], paths: [\"/api/*\"] }
    action: allow
    reason: the shop shows orders
  - name: vault
    from: [\"*\"]
    to: { service: orders, paths: [\"/api/vault/*\"] }
    action: deny
";

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write("policy.yaml", RULES);
        place.configure("rules_file: policy.yaml");
        place
    }

    fn configure(&self, policy: &str) {
        let identity = "trust_domain: example.org, cert_file: c, key_file: k, ca_file: r";
        let config = format!(
            "service: {{ id: orders, listen: \"127.0.0.1:8443\" }}\nidentity: {{ {identity} }}\npolicy: {{ {policy} }}\n\
             auth: {{ issuers: [ {{ issuer: i, jwks_file: keys.json }} ] }}\n"
        );
        self.write("mesh.yaml", &config);
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-node"));
        command.args(arguments).current_dir(self.path()).env_clear();
        let output = command.output().unwrap();
        Ran {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Writes an audit log with one decision a row: id, caller, method and path, verdict, rule.
    fn record(&self, name: &str, rows: &[(&str, &str, &str, &str, Option<&str>)]) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let (log, driver) = mesh_audit::open(Config::new(&path), OsFileSystem, clock).unwrap();
        let writer = std::thread::spawn(move || driver.run());
        for (id, who, call, verdict, rule) in rows {
            let mut event = Event::new(EventKind::Message).with("direction", "inbound");
            for (field, text) in facts(id, who, call).to_fields() {
                event = event.with(field, text.as_str());
            }
            event = event.with("verdict", *verdict);
            if let Some(rule) = rule {
                event = event.with("rule", *rule);
            }
            log.try_append(event.with("status", 200_u16)).unwrap();
        }
        drop(log);
        writer.join().unwrap();
    }
}

fn clock() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(500_000)
}

fn facts(id: &str, who: &str, call: &str) -> Facts {
    let spiffe_id = SpiffeId::parse(&format!("spiffe://example.org/{who}")).unwrap();
    let caller = Caller::new(Some(spiffe_id), None);
    let (method, path) = call.split_once(' ').unwrap();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "orders");
    let parts = request.body(()).unwrap().into_parts().0;
    let request = CanonicalRequest::new(parts, &Limits::default()).unwrap();
    let query = Query::new(&caller, "orders", 1_800_000_000)
        .with_port(8443)
        .with_request(&request);
    Facts::of(id, &query, &Needs::default())
}

impl Ran {
    #[track_caller]
    fn done(self, code: i32) -> Self {
        assert_eq!((self.code, &*self.err), (code, ""), "{}", self.out);
        self
    }

    #[track_caller]
    fn failed(self, code: i32, said: &str) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        assert!(self.err.contains(said), "{}", self.err);
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }

    #[track_caller]
    fn says(self, lines: &[&str]) -> Self {
        for line in lines {
            assert!(self.out.contains(line), "{line} is not in\n{}", self.out);
        }
        self
    }
}

const LOG: &str = "logs/mesh-audit.log";

#[test]
fn a_denied_call_is_explained_with_the_smallest_change() {
    let place = Place::new();
    let call = [
        "explain",
        "--from",
        "web",
        "--to",
        "orders",
        "--method",
        "POST",
        "--path",
        "/x/../api/7",
    ];
    place.run(&call).done(0).says(&[
        "POST /api/7 of orders:8443, called by spiffe://example.org/web, is denied: no rule allows it.",
        "Nearest is rule web-reads: its methods are GET; POST is none of them.",
        "  default            decides: what no rule allows is denied",
        "  deny    vault      its paths are /api/vault/*; /api/7 matches none of them",
        "The smallest change that would allow it: add POST to to.methods of the rule web-reads.",
        "  - name: web-reads\n    from: [web]\n    to: { service: orders, methods: [GET, POST], paths: [\"/api/*\"] }",
    ]);
    let json = place.run(&[&call[..], &["--json"]].concat()).done(0).json();
    let explanation = &json["explanation"];
    assert_eq!(explanation["verdict"], "deny");
    assert_eq!(explanation["nearest"]["condition"], "to.methods");
    let edit = &explanation["change"]["edits"][0];
    assert_eq!(
        (&edit["rule"], &edit["add_to"], &edit["value"]),
        (&"web-reads".into(), &"to.methods".into(), &"POST".into())
    );
    assert_eq!(explanation["chain"][0]["matches"], false);
}

#[test]
fn an_allowed_call_names_its_rule_and_a_call_of_a_user_is_asked_about_by_name() {
    let place = Place::new();
    place
        .run(&["explain", "--from", "web", "--path", "/api/7"])
        .done(0)
        .says(&[
            "is allowed by rule web-reads. Its reason: the shop shows orders.",
            "  allow   web-reads  matches, and decides",
            "The smallest change that would deny it: add the rule deny-web-get-orders",
        ]);
    let rule = "rules: [ { name: admins, from: [\"claim:team=pay\"], to: { service: orders }, action: allow } ]";
    place.configure(rule);
    let user = [
        "explain",
        "--issuer",
        "i",
        "--subject",
        "ada",
        "--group",
        "admin",
        "--path",
        "/",
    ];
    place
        .run(&user)
        .done(0)
        .says(&["ada of i (groups admin) without a certificate, is denied"]);
    place
        .run(&[&user[..], &["--claim", "team=[\"pay\", \"ops\"]"]].concat())
        .done(0)
        .says(&["is allowed by rule admins"]);
}

#[test]
fn the_shadow_policy_is_explained_beside_the_one_in_force() {
    let place = Place::new();
    place.write("next.yaml", "rules: []\n");
    place.configure("rules_file: policy.yaml, shadow_file: next.yaml");
    place
        .run(&["explain", "--from", "web", "--path", "/api/7"])
        .done(0)
        .says(&[
            "By the policy in force:\nGET /api/7",
            "By the shadow policy, which decides nothing:\nGET /api/7",
            "is denied: the policy has no rules",
        ]);
}

#[test]
fn wrong_questions_are_refused_by_what_is_wrong_with_them() {
    let place = Place::new();
    for (arguments, said) in [
        (&["explain"][..], "required arguments"),
        (&["explain", "ID", "--from", "web"], "cannot be used with"),
        (&["explain", "--from", "We b"], "--from \"We b\" is nobody"),
        (
            &["explain", "--from", "web", "--path", "/%2e%2e/%2f"],
            "none that a rule is asked about",
        ),
        (
            &["explain", "--from", "web", "--at", "soon"],
            "--at \"soon\" is neither",
        ),
        (
            &["explain", "--from", "web", "--header", "x"],
            "is not \"NAME: VALUE\"",
        ),
        (&["explain", "--from", "web", "--port", "70000"], "70000"),
        (&["explain", "--issuer", "i"], "--subject"),
        (
            &["explain", "--from", "web", "-c", "none.yaml"],
            "none.yaml",
        ),
        (
            &["explain", "../../etc/passwd"],
            "is not the id of a decision",
        ),
    ] {
        place.run(arguments).failed(2, said);
    }
    place.write("policy.yaml", &RULES.replace("methods:", "method:"));
    place.run(&["explain", "--from", "web"]).failed(
        2,
        "policy.yaml:4:28: rules[0].to.method: unknown key; did you mean \"methods\"?",
    );
    place.write("policy.yaml", &RULES.replace("/api/vault/*", "/api/*/x"));
    place.run(&["explain", "--from", "web"]).failed(
        2,
        "policy.yaml:7:5: rules[1]: is not a policy that can be enforced",
    );
}

#[test]
fn a_recorded_decision_is_found_and_decided_again() {
    let place = Place::new();
    let rows = [
        ("01A", "web", "GET /api/1", "allow", Some("web-reads")),
        ("01B", "web", "POST /api/1", "deny", None),
        ("01C", "web", "GET /other", "allow", Some("gone")),
    ];
    place.record(LOG, &rows);
    place.run(&["explain", "01B"]).done(0).says(&[
        "Decision 01B, recorded 2027-01-15T08:00:00.000Z: deny by default.\n\nBy the present policy:\nPOST /api/1",
        "add POST to to.methods",
    ]);
    place.run(&["explain", "01C"]).done(0).says(&[
        "allow by gone.\n\nThe policy has changed since. By the present one:",
        "/other of orders:8443, called by spiffe://example.org/web, is denied",
    ]);
    let json = place.run(&["explain", "01C", "--json"]).done(0).json();
    assert_eq!(
        (&json["has_changed"], &json["record"]["path"]),
        (&true.into(), &"/other".into())
    );
    place
        .run(&["explain", "01D"])
        .failed(1, "there is no decision 01D in logs/mesh-audit.log");
    // Moved aside by whoever rotates logs.
    let log = place.path().join(LOG);
    fs::rename(&log, log.with_extension("log.1")).unwrap();
    place.record(LOG, &[("01E", "web", "GET /api/1", "allow", None)]);
    place
        .run(&["explain", "01A"])
        .done(0)
        .says(&["Decision 01A"]);
    place
        .run(&["explain", "01E"])
        .done(0)
        .says(&["Decision 01E"]);
}

#[test]
fn a_record_that_was_changed_or_torn_is_used_and_said_to_be() {
    let place = Place::new();
    place
        .run(&["explain", "01A"])
        .failed(1, "could not read the record logs/mesh-audit.log");
    let rows = [
        ("01A", "web", "GET /api/1", "allow", None),
        ("01B", "web", "GET /api/2", "allow", None),
        ("01C", "web", "GET /api/3", "allow", None),
    ];
    place.record(LOG, &rows);
    let path = place.path().join(LOG);
    let whole = fs::read_to_string(&path).unwrap();
    place.write(LOG, whole.get(..whole.len() - 20).unwrap());
    place
        .run(&["explain", "01C"])
        .failed(1, "the last line is torn");
    place
        .run(&[
            "policy",
            "diff",
            "policy.yaml",
            "policy.yaml",
            "--over",
            LOG,
        ])
        .done(0)
        .says(&[
            "0 of 2 recorded",
            "warning: the record logs/mesh-audit.log can't be relied on",
            "torn",
        ]);
    // threat 57
    place.write(LOG, &whole.replace("/api/2", "/api/9"));
    place
        .run(&["explain", "01C"])
        .done(0)
        .says(&["can't be relied on", "line 3"]);
}

const TABLE: &str = "\
tests:
  - { name: reads, from: web, to: orders, path: /api/7, expect: allow, rule: web-reads }
  - name: vault
    from: web
    user: { issuer: i, subject: ada, groups: [admin], claims: { level: 7 } }
    to: orders
    method: GET
    path: /api/vault/gold
    headers: { x-tenant: acme }
    at: 2027-01-01
    expect: deny
    rule: vault
  - { name: a connection, from: web, to: orders, port: 8443, expect: deny }
";

#[test]
fn a_policy_is_held_against_a_table() {
    let place = Place::new();
    place.write("table.yaml", TABLE);
    place
        .run(&["policy", "test", "table.yaml"])
        .done(0)
        .says(&["3 of 3 expectation(s) hold"]);
    let alone = [
        "policy",
        "test",
        "table.yaml",
        "--policy",
        "policy.yaml",
        "--trust-domain",
        "example.org",
    ];
    fs::remove_file(place.path().join("mesh.yaml")).unwrap();
    place
        .run(&alone)
        .done(0)
        .says(&["ok    reads", "ok    vault"]);
    place.write("table.yaml", &TABLE.replace("/api/7", "/api/vault/7"));
    place.run(&alone).done(1).says(&[
        "FAIL  reads: expected allow by web-reads, but GET /api/vault/7 of orders:0, called by",
        "is denied by rule vault.",
        "2 of 3 expectation(s) hold",
    ]);
    let json = place
        .run(&[&alone[..], &["--json"]].concat())
        .done(1)
        .json();
    assert_eq!(
        (&json["ok"], &json["surprises"]),
        (&false.into(), &1.into())
    );
    assert_eq!(json["tests"][0]["explanation"]["rule"], "vault");
}

#[test]
fn a_table_that_is_wrong_is_refused_with_file_and_line() {
    let place = Place::new();
    let alone = ["policy", "test", "table.yaml"];
    for (from, to, said) in [
        (
            "expect: allow",
            "expect: maybe",
            "table.yaml:2:65: tests[0].expect: \"maybe\" is not known here",
        ),
        (
            "rule: web-reads",
            "rul: web-reads",
            "table.yaml:2:72: tests[0].rul: unknown key; did you mean \"rule\"?",
        ),
        (
            "from: web,",
            "from: w*b,",
            "table.yaml:2:26: tests[0].from: is nobody",
        ),
        (
            "/api/7",
            "/api/%2f",
            "table.yaml:2:49: tests[0].path: is asked of no rule",
        ),
        (
            "2027-01-01",
            "soon",
            "table.yaml:10:9: tests[1].at: \"soon\" is neither",
        ),
        ("tests:", "test:", "table.yaml:1:1: test: unknown key"),
    ] {
        place.write("table.yaml", &TABLE.replace(from, to));
        place.run(&alone).failed(2, said);
    }
    place
        .run(&["policy", "test", "none.yaml"])
        .failed(2, "none.yaml: could not read the table");
}

#[test]
fn a_diff_lists_exactly_the_recorded_decisions_that_are_turned() {
    let place = Place::new();
    let rows = [
        ("01A", "web", "GET /api/1", "allow", Some("web-reads")),
        ("01B", "web", "GET /api/vault/1", "deny", Some("vault")),
        ("01C", "report", "GET /api/1", "deny", None),
        ("01D", "web", "DELETE /api/1", "deny", None),
    ];
    place.record("record.log", &rows);
    let diff = |after: &str| {
        place.write("next.yaml", after);
        let diff = [
            "policy",
            "diff",
            "policy.yaml",
            "next.yaml",
            "--over",
            "record.log",
        ];
        (
            place.run(&diff),
            place.run(&[&diff[..], &["--json"]].concat()),
        )
    };
    let (same, _) = diff(&RULES.replace("web-reads", "renamed"));
    same.done(0)
        .says(&["0 of 4 recorded decision(s) would be turned"]);
    let (text, json) = diff(&RULES.replace("from: [web]", "from: [report]"));
    text.done(1).says(&[
        "01A 2027-01-15T08:00:00.000Z allow by web-reads -> deny by default: GET /api/1 of orders by spiffe://example.org/web\n\
         01C 2027-01-15T08:00:00.000Z deny by default -> allow by web-reads: GET /api/1 of orders by spiffe://example.org/report\n\
         2 of 4 recorded",
    ]);
    let json = json.done(1).json();
    assert_eq!(json["differences"].as_array().unwrap().len(), 2);
    // What the record does not have can't be decided, and is not guessed.
    let (text, _) = diff(&RULES.replace("from: [web]", "from: [\"claim:team=pay\", web]"));
    text.done(0).says(&["0 of 4"]);
    place
        .run(&[
            "policy",
            "diff",
            "policy.yaml",
            "none.yaml",
            "--over",
            "record.log",
        ])
        .failed(2, "none.yaml");
    place
        .run(&[
            "policy",
            "diff",
            "policy.yaml",
            "policy.yaml",
            "--over",
            "none.log",
        ])
        .failed(1, "none.log");
    place.write("next.yaml", "rules_file: x\n");
    place
        .run(&[
            "policy",
            "diff",
            "policy.yaml",
            "next.yaml",
            "--over",
            "record.log",
        ])
        .failed(
            2,
            "next.yaml:1:13: rules_file: has no place in a policy file",
        );
}

#[test]
fn drafted_rules_are_a_policy_that_allows_what_was_seen() {
    let place = Place::new();
    let rows = [
        ("01A", "web", "GET /api/1", "allow", Some("web-reads")),
        ("01B", "web", "GET /api/2", "deny", None),
        ("01C", "web", "GET /api/vault/2", "deny", Some("vault")),
        ("01D", "report", "GET /api/1", "would_deny", Some("default")),
    ];
    place.record(LOG, &rows);
    let before = fs::read_to_string(place.path().join("policy.yaml")).unwrap();
    let suggested = place.run(&["policy", "suggest"]).done(0).says(&[
        "# Drafted from 4 recorded decision(s) of logs/mesh-audit.log; nothing is changed.",
        "# Not drafted from: 1 call(s) that a deny rule refused.",
        "  - name: report-get-orders\n    from: [report]\n    to: { service: orders, methods: [GET], paths: [/api/1], ports: [8443] }",
        "    reason: \"1 call(s) seen on 2027-01-15, 1 of them on trial\"",
        "    to: { service: orders, methods: [GET], paths: [\"/api/{id}\"], ports: [8443] }",
        "    reason: \"2 call(s) seen on 2027-01-15, 1 of them denied by default\"",
    ]);
    assert_eq!(
        fs::read_to_string(place.path().join("policy.yaml")).unwrap(),
        before
    );
    place.write("draft.yaml", &suggested.out);
    let ids = |json: &Value| -> Vec<String> {
        let differences = json["differences"].as_array().unwrap().iter();
        differences
            .map(|it| it["decision"].as_str().unwrap().to_owned())
            .collect()
    };
    let diff = [
        "policy",
        "diff",
        "policy.yaml",
        "draft.yaml",
        "--over",
        LOG,
        "--json",
    ];
    assert_eq!(ids(&place.run(&diff).done(1).json()), ["01D"]);
    let json = place
        .run(&["policy", "suggest", "--over", LOG, "--json"])
        .done(0)
        .json();
    assert_eq!(json["drafts"][1]["calls"], 2);
    assert_eq!(json["drafts"][1]["rule"]["to"]["paths"][0], "/api/{id}");
}

#[test]
fn a_doubtful_rule_is_told_with_its_line() {
    let place = Place::new();
    let owned = RULES.replace("    action:", "    owner: shop\n    action:");
    place.write("policy.yaml", &owned);
    place
        .run(&["policy", "lint"])
        .done(0)
        .says(&["2 rule(s): 0 to look at, 0 note(s)"]);
    place.write(
        "policy.yaml",
        &owned.replace("from: [web]", "from: [\"*\"]"),
    );
    place.run(&["policy", "lint"]).done(1).says(&[
        "policy.yaml:2:5: rules[0]: warning: rule web-reads: it allows every caller, for ever",
        "2 rule(s): 1 to look at",
    ]);
    let json = place.run(&["policy", "lint", "--json"]).done(1).json();
    assert_eq!(json["findings"][0]["kind"], "wide");
}
