//! `check` and `explain --route`, run as a person or a script would.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

const EXAMPLE: &str = include_str!("../../examples/routes/mesh.yaml");

/// A folder that the program runs in.
struct Place(TempDir);

/// What one run gave.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Place {
    /// With the certificates of `web`, and this configuration.
    fn new(config: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place
            .run(&["ca", "init", "--trust-domain", "example.org"])
            .done();
        place
            .run(&["ca", "issue", "web", "--lifetime", "48h"])
            .done();
        fs::write(place.path().join("mesh.yaml"), config).unwrap();
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
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

    /// What `explain --route` says of a call of `api`.
    fn explain(&self, method: &str, path: &str, header: &[&str]) -> Ran {
        let mut arguments = vec![
            "explain", "--route", "--to", "api", "--method", method, "--path", path,
        ];
        for header in header {
            arguments.extend(["--header", header]);
        }
        let text = self.run(&arguments).done();
        arguments.push("--json");
        let json = self.run(&arguments).done();
        Ran {
            out: json.out,
            err: text.out,
            code: 0,
        }
    }
}

impl Ran {
    #[track_caller]
    fn done(self) -> Self {
        assert_eq!((self.code, &*self.err), (0, ""), "{}", self.out);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

/// The example with other routes.
fn with_routes(routes: &[&str]) -> String {
    let (before, _) = EXAMPLE.split_once("\nroutes:\n").unwrap();
    let routes: Vec<String> = routes
        .iter()
        .map(|route| format!("  - {route}\n"))
        .collect();
    format!("{before}\nroutes:\n{}", routes.concat())
}

#[test]
fn the_example_passes_the_check_without_a_doubt() {
    let check = Place::new(EXAMPLE).run(&["check", "--json"]).done().json();
    assert_eq!(
        check["checked"]["routes"],
        "6, the first that matches takes a call"
    );
    assert_eq!(check["warnings"], Value::Array(Vec::new()));
}

#[test]
fn each_class_of_the_example_is_treated_as_it_should_be() {
    let place = Place::new(EXAMPLE);
    for (method, path, header, route, attempts, timeout) in [
        ("GET", "/health", &[][..], "health", 1, "2s"),
        ("GET", "/health/services", &[], "health", 1, "2s"),
        ("POST", "/auth/login", &["canary: true"], "auth", 1, "30s"),
        ("GET", "/admin/users", &[], "admin", 3, "2m"),
        ("GET", "/api/7", &["x-fault-drill: slow"], "drill", 3, "30s"),
        ("GET", "/api/7", &["canary: true"], "canary", 3, "30s"),
        ("GET", "/api/7", &["canary: false"], "user", 3, "30s"),
        ("GET", "/healthy", &[], "user", 3, "30s"),
    ] {
        let said = place.explain(method, path, header).json();
        assert_eq!(said["route"]["name"], route, "{method} {path}");
        let treatment = &said["treatment"];
        assert_eq!(
            treatment["retry"]["value"]["max_attempts"], attempts,
            "{path}"
        );
        assert_eq!(treatment["timeout"]["value"], timeout, "{path}");
    }
}

#[test]
fn explain_says_what_stands_in_where_the_service_fails() {
    let place = Place::new(&with_routes(&[
        "{ name: backed, match: { path: '/api/*' }, fallback: { service: api-backup, stale: {}, answer: { status: 503, body: later } } }",
    ]));
    let said = place.explain("GET", "/api/7", &[]);
    let fallback = &said.json()["treatment"]["fallback"];
    assert_eq!(fallback["by"], "route");
    assert_eq!(fallback["value"]["stale"]["max_age"], "10m");
    let line = "fallback, by the route: answer (body later, status 503), service api-backup, stale (max_age 10m, max_answer_bytes \
                65536, max_bytes 8388608)";
    assert!(said.err.contains(line), "{}", said.err);
}

#[test]
fn explain_says_which_route_why_not_the_others_and_what_is_done() {
    let place = Place::new(&with_routes(&[
        "{ name: other, match: { services: [other] } }",
        "{ name: writes, match: { methods: [POST] } }",
        "{ name: split, match: { path: '/api/*' }, to: [ { service: api-canary, weight: 1 }, { weight: 2 } ], timeout: 5s }",
    ]));
    let said = place.explain("GET", "/api/7", &[]);
    let json = said.json();
    assert_eq!(json["route"]["place"], "mesh.yaml:17");
    assert_eq!(
        json["passed_over"][1]["why"],
        "it is about the methods POST"
    );
    assert_eq!(json["targets"][1]["service"], "api");
    assert_eq!(json["treatment"]["timeout"]["by"], "route");
    assert_eq!(json["treatment"]["retry"]["by"], "resilience");
    let expected = "\
GET /api/7 of api takes the route split, mesh.yaml:17.
  not other, mesh.yaml:15: it is about other
  not writes, mesh.yaml:16: it is about the methods POST
  to api-canary, 33.3333 % of the calls
  to api, 66.6666 % of the calls
  timeout, by the route: 5s
";
    assert!(said.err.starts_with(expected), "{}", said.err);
    assert!(
        said.err
            .contains("\n  retry, by resilience: backoff exponential, "),
        "{}",
        said.err
    );

    let none = place.explain("GET", "/", &[]);
    assert_eq!(none.json()["route"], Value::Null);
    assert!(
        none.err
            .starts_with("GET / of api takes no route and goes to api.\n"),
        "{}",
        none.err
    );
}

#[test]
fn check_tells_mirrors_that_make_the_same_service_do_a_thing_twice() {
    let place = Place::new(&with_routes(&[
        "{ name: get, match: { path: /a, methods: [GET, PUT] }, mirror: {} }",
        "{ name: post, match: { path: /b, methods: [GET, POST] }, mirror: {} }",
        "{ name: named, match: { path: /c, services: [api] }, mirror: { service: api } }",
        "{ name: other, match: { path: /d }, to: [ { service: api } ], mirror: { service: shadow } }",
        "{ name: apart, match: { path: /e }, mirror: { subset: { tags: [v2] } } }",
        "{ name: same, match: { path: /f }, to: [ { subset: { tags: [v2] } } ], mirror: { subset: { tags: [v2] } } }",
        "{ name: back, match: { path: /g }, mirror: { service: backup }, fallback: { service: backup } }",
        "{ name: aside, match: { path: /h, services: [api] }, mirror: { service: shadow }, fallback: { service: backup } }",
    ]));
    let check = place.run(&["check", "--json"]).done().json();
    let warnings = check["warnings"].as_array().unwrap().iter();
    let doubled = warnings.filter_map(|warning| {
        let warning = warning.as_str().unwrap();
        let (key, _) = warning.split_once(".mirror: sends copies of POST")?;
        Some(key.rsplit_once(' ').unwrap().1)
    });
    let doubled: Vec<&str> = doubled.collect();
    assert_eq!(
        doubled,
        ["routes[1]", "routes[2]", "routes[5]", "routes[6]"]
    );
}

#[test]
fn check_tells_routes_that_no_call_reaches_with_both_lines() {
    let place = Place::new(&with_routes(&[
        "{ name: all, match: { services: [api] } }",
        "{ name: late, match: { services: [api], path: /late } }",
        "{ name: get, match: { methods: [GET] } }",
        "{ name: rest, match: { headers: [ { name: x, equals: a }, { name: x, equals: b } ] } }",
        "{ name: put, match: { methods: [PUT] } }",
        "{ name: both, match: { methods: [GET, PUT], path: /both } }",
        "{ name: loose, match: { path_regex: 'v[0-9]' }, to: [ { service: apii } ] }",
        "{ name: subset, match: { path: /s }, to: [ { service: api, subset: { tags: [v2] } }, { service: api, subset: { tags: [v3] } } ] }",
        "{ name: down, match: { path: /d }, fallback: { service: apis, answer: {} } }",
        "{ name: honest, match: { path: /h }, fallback: { answer: { status: 503 } } }",
        "{ name: reads, match: { path: /r, methods: [GET, HEAD] }, fallback: { service: api, answer: {} } }",
    ]));
    let check = place.run(&["check", "--json"]).done().json();
    let expected = [
        "mesh.yaml:16:5: routes[1]: no call reaches late: all (line 15) stands before it and takes whatever it matches; put it before that \
         one, or remove it",
        "mesh.yaml:18:5: routes[3]: no call reaches rest: what it asks for contradicts itself; correct its match, or remove it",
        "mesh.yaml:20:5: routes[5]: no call reaches both: get (line 17), put (line 19) stand before it and together take whatever it \
         matches; put it before them, or remove it",
        "mesh.yaml:21:70: routes[6].to[0].service: names apii, which no source of discovery knows",
        "mesh.yaml:22:114: routes[7].to[1].subset: is nobody: no endpoint of the service is like this, so its calls fail",
        "mesh.yaml:23:61: routes[8].fallback.service: names apis, which no source of discovery knows",
        "mesh.yaml:23:75: routes[8].fallback.answer: answers writes too, as if they had been done; say which methods it is for in \
         match.methods, or give it the status of an error",
        "mesh.yaml:23:61: routes[8].fallback.service: gets writes too that the service itself did not execute, except those with an \
         Idempotency-Key, and neither service knows what the other one executed; name methods that change nothing in match.methods, \
         such as [GET]",
        "mesh.yaml:21:41: routes[6].match.path_regex: is looked for anywhere in the path; begin it with ^ to tie it to the start",
    ];
    let warnings: Vec<&str> = check["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|warning| warning.as_str().unwrap())
        .collect();
    assert_eq!(warnings, expected);
}
