//! Tests of building events.

use super::*;

fn json(event: Event) -> serde_json::Value {
    let fields = String::from_utf8(event.into_fields()).unwrap();
    serde_json::from_str(&format!("{{\"x\":0{fields}}}")).unwrap()
}

#[test]
fn keeps_every_scalar() {
    let value = json(
        Event::new(EventKind::Message)
            .with("text", "a")
            .with("bool", true)
            .with("max", u64::MAX)
            .with("min", i64::MIN)
            .with("float", 1.5)
            .with("huge", 1e300)
            .with("nan", f64::NAN)
            .with("none", None::<&str>)
            .with("some", Some(7_u16))
            .with_display("shown", &format_args!("{}-{}", 1, 2)),
    );
    let expected = serde_json::json!({ "x": 0, "text": "a", "bool": true, "max": u64::MAX, "min": i64::MIN,
        "float": 1.5, "huge": 1e300, "nan": null, "none": null, "some": 7, "shown": "1-2" });
    assert_eq!(value, expected);
}

// threat 56
#[test]
fn hostile_text_stays_inside_its_string() {
    let hostile = "a\r\n{\"seq\":1}\x1b[2J\u{9b}31m\u{7f}\u{2028}\u{202e}\u{feff}\0\"\\é";
    let event = Event::new(EventKind::Message).with("path", hostile);
    let fields = event.clone().into_fields();
    assert!(!fields.iter().any(u8::is_ascii_control));
    let text = String::from_utf8(fields).unwrap();
    assert!(!text.contains(['\u{9b}', '\u{2028}', '\u{202e}', '\u{feff}']));
    assert!(text.contains('é'));
    assert_eq!(json(event)["path"], hostile);
}

// threat 56
#[test]
fn a_megabyte_path_is_cut_and_marked() {
    let path = "é".repeat(500_000);
    let value = json(
        Event::new(EventKind::Message)
            .with("path", &path)
            .with_display("again", &path),
    );
    for name in ["path", "again"] {
        assert_eq!(value[name].as_str().unwrap().len(), Event::MAX_TEXT_BYTES);
        assert_eq!(
            value[format!("{name}.cut")],
            1_000_000 - Event::MAX_TEXT_BYTES
        );
    }
}

#[test]
fn a_cut_text_has_no_hole() {
    let long = "a".repeat(Event::MAX_TEXT_BYTES - 1);
    let value =
        json(Event::new(EventKind::Message).with_display("t", &format_args!("{long}é{}", 'b')));
    assert_eq!(
        (value["t"].as_str().unwrap(), &value["t.cut"]),
        (long.as_str(), &serde_json::json!(3))
    );
}

// threat 57
#[test]
fn a_field_can_not_pass_for_one_of_the_log() {
    let mut event = Event::new(EventKind::Message);
    for name in ["hash", "notice", "a", "a", "a", "b\",\"seq", "", "a.cut"] {
        event = event.with(name, 1_u32);
    }
    let text = String::from_utf8(event.into_fields()).unwrap();
    let expected = r#","hash_":1,"notice_":1,"a":1,"a_":1,"a__":1,"b_,__seq":1,"_":1,"a.cut_":1"#;
    assert_eq!(text, expected.replace("b_,__seq", "b___seq"));
}

// threat 59
#[test]
fn fields_past_the_bounds_are_counted() {
    let mut event = Event::new(EventKind::Message);
    for index in 0..Event::MAX_FIELDS + 6 {
        event = event.with(&format!("f{index}"), 1_u32);
    }
    assert_eq!(json(event)["omitted"], 6);

    let controls = "\u{1}".repeat(Event::MAX_TEXT_BYTES);
    let event = Event::new(EventKind::Message)
        .with("a", controls.as_str())
        .with("b", controls.as_str())
        .with("c", true);
    assert!(event.clone().into_fields().len() < Event::MAX_BYTES + 32);
    let value = json(event);
    assert_eq!(
        (&value["omitted"], &value["c"]),
        (&serde_json::json!(1), &serde_json::json!(true))
    );
    assert!(value.get("b").is_none());
}
