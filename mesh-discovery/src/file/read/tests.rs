//! Files as they should be, and as they may be.

use proptest::prelude::*;

use super::*;

fn yaml(text: &str) -> Result<Lists, Error> {
    parse(Path::new("s.yaml"), Format::Yaml, text.as_bytes())
}

fn json(text: &str) -> Result<Lists, Error> {
    parse(Path::new("s.json"), Format::Json, text.as_bytes())
}

fn rows(lists: &Lists) -> Vec<String> {
    lists
        .iter()
        .flat_map(|(service, list)| {
            list.iter().map(move |one| {
                let (zone, tags) = (one.zone.as_deref().unwrap_or("-"), one.tags.join("+"));
                format!("{service} {} {one} {} {zone} {tags}", one.id, one.weight)
            })
        })
        .collect()
}

#[test]
fn both_formats_say_the_same() {
    let expected = [
        "7 10.0.0.9:1 10.0.0.9:1 1 - ",
        "orders one 10.0.0.7:50051 3 007 a+1.0",
        "orders [::1]:1 [::1]:1 1 - ",
    ];
    let in_yaml = "
# A comment.
- {id: orders, host: 10.0.0.7, port: 50051, instance: one, weight: 3, zone: 007, tags: [a, 1.0]}
- id: orders
  host: '::1'
  port: 1
  version: ~
- id: 7
  host: 10.0.0.9
  port: 1
";
    let in_json = r#" [
        {"id":"orders","host":"10.0.0.7","port":50051,"instance":"one","weight":3,"zone":"007","tags":["a","1.0"]},
        {"id":"orders","host":"::1","port":1,"version":null},
        {"id":"7","host":"10.0.0.9","port":1}
    ] "#;
    assert_eq!(rows(&yaml(in_yaml).unwrap()), expected);
    assert_eq!(rows(&json(in_json).unwrap()), expected);
    assert_eq!(rows(&yaml(in_json).unwrap()), expected);
    assert_eq!(yaml("[]").unwrap(), Lists::new());
    assert_eq!(json("[]").unwrap(), Lists::new());
}

#[test]
fn a_mistake_is_named_with_line_column_and_key() {
    for (text, expected) in [
        (
            "- {id: a, host: b, port: 1}\n- {id: a, host: b, port: many}",
            "s.yaml, line 2, column 26, key `port`: invalid type: string \"many\", expected u16",
        ),
        (
            "- id: a\n  host: b\n  port: 70000",
            "s.yaml, line 3, column 9, key `port`: invalid value: integer `70000`, expected u16",
        ),
        (
            "- id: a\n  host: 169.254.169.254\n  port: 1",
            "s.yaml, line 2, column 9, key `host`: the address is in a special range",
        ),
        (
            "- {id: a, host: b, port: 1, colour: red}",
            "s.yaml, line 1, column 37, key `colour`: unknown field `colour`",
        ),
        (
            "- {id: a, host: b}",
            "s.yaml, line 1, column 3: missing field `port`",
        ),
        (
            "- {id: a, host: b, port: 1, port: 2}",
            "s.yaml, line 1, column 35, key `port`: the key is here twice",
        ),
        (
            "- {id: a, host: b, port: 1, tags: {x: y}}",
            "s.yaml, line 1, column 35, key `tags`: invalid type: map, expected a sequence",
        ),
        (
            "- {id: a, host: b, port: 1}\n\n- {id: a, host: B, port: 1}",
            "s.yaml, line 3, column 3: endpoint `b:1` of service `a` is also on line 1",
        ),
        (
            "- {id: a, host: b, port: 0}",
            "s.yaml, line 1, column 3: service `a`: endpoint `b:0` has an unusable port",
        ),
        (
            "a: b",
            "s.yaml, line 1, column 1: a list of services is expected here",
        ),
        (
            "- &x {id: a}\n- *x",
            "line 2, column 3: aliases are not supported",
        ),
        ("- !!str a", "tags such as !!str"),
        ("- *x", "s.yaml, line 1"),
        ("[]\n---\n[]", "a second document"),
        ("- {id: a", "is not YAML"),
        ("", "s.yaml is empty"),
        ("# only this\n", "s.yaml is empty"),
        ("~", "s.yaml is empty"),
        ("[[[[[[[[[[[[]]]]]]]]]]]]", "nested too deep"),
    ] {
        let error = yaml(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}\n{error}\n{expected}");
    }
}

#[test]
fn so_it_is_in_json_and_where_it_is_no_text() {
    for (text, expected) in [
        (
            "[\n {\"id\": \"a\", \"host\": \"ä\",\n  \"port\": 1}]",
            "s.json, line 2, column 22, key `host`: a host must be",
        ),
        (
            "[{\"id\": \"\u{fc}\",\n  \"host\": \"a\", \"port\": \"80\"}]",
            "s.json, line 1, column 9, key `id`: ",
        ),
        (
            "[{\"id\": \"a\", \"host\": \"a\", \"port\": \"80\"}]",
            "s.json, line 1, column 35, key `port`: invalid type: string \"80\", expected u16",
        ),
        (
            "[{\"id\": \"a\",]",
            "s.json, line 1, column 13: is not JSON",
        ),
        ("[]]", "is not JSON"),
        ("- a", "is not JSON"),
        ("", "s.json is empty"),
        (" \n", "s.json is empty"),
        ("null", "s.json is empty"),
        ("{}", "a list of services is expected here"),
        ("[[[[[[[[[[[[]]]]]]]]]]]]", "nested too deep"),
    ] {
        let error = json(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}\n{error}\n{expected}");
    }
    let error = parse(Path::new("s.yaml"), Format::Yaml, b"- a\n- \xff").unwrap_err();
    assert_eq!(error.to_string(), "s.yaml, line 2, column 3: is not UTF-8");
}

// threat 51
#[test]
fn a_file_costs_no_more_than_its_bounds() {
    let many = format!("[{}1]", "1,".repeat(MAX_ENDPOINTS));
    let error = json(&many).unwrap_err();
    assert!(matches!(error, Error::List { .. }), "{error}");
    let more = format!("[[{}1]]", "1,".repeat(500_000));
    for error in [json(&more).unwrap_err(), yaml(&more).unwrap_err()] {
        assert!(error.to_string().contains("500000"), "{error}");
    }
}

#[test]
fn every_beginning_of_a_file_is_refused_or_holds_whole_lines() {
    let text = "- {id: orders, host: 10.0.0.7, port: 50051}\n- {id: orders, host: 10.0.0.8, port: 50051}\n";
    let whole = rows(&yaml(text).unwrap());
    for end in 0..text.len() {
        if let Ok(lists) = yaml(text.get(..end).unwrap()) {
            let rows = rows(&lists);
            assert!(rows.iter().all(|row| whole.contains(row)), "{rows:?}");
        }
    }
}

proptest! {
    #[test]
    fn whatever_the_file_holds_it_is_read_or_refused(text in "[-\\[\\]{}:,#&*!'\"a-c0-9 \n~]{0,60}") {
        drop(yaml(&text));
        drop(json(&text));
    }
}

#[tokio::test]
async fn a_look_that_ends_without_a_result_is_an_error_until_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.json");
    std::fs::write(&path, "[]").unwrap();
    let config = Config::new(&path);
    let mut seen = Seen::default();
    assert!(seen.look(&config, Format::Json).await && seen.error.is_none());
    let broken = tokio::task::spawn_blocking(|| std::panic::resume_unwind(Box::new(())));
    seen.reading = Some(broken);
    assert!(seen.look(&config, Format::Json).await);
    assert!(matches!(seen.error, Some(Error::Read { .. })));
    assert!(seen.look(&config, Format::Json).await && seen.error.is_none());
}
