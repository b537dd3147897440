//! Files of services, and the answers of name servers.
//!
//! The modules of mesh-discovery that read them are private there, so their files are included here as they are.

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::RecordType;
use mesh_discovery::StaticEntry;
use mesh_discovery::dns::Error;
use mesh_discovery::dns::Kind;
use serde::Deserialize as _;

#[allow(
    dead_code,
    reason = "it is another crate's, which uses more of it than this does"
)]
#[path = "../../mesh-discovery/src/dns/answer.rs"]
mod answer;
#[path = "../../mesh-discovery/src/file/json.rs"]
mod json;
#[path = "../../mesh-discovery/src/file/tree.rs"]
mod tree;
#[path = "../../mesh-discovery/src/file/yaml.rs"]
mod yaml;

/// A file of services, in both formats: read or refused, with the place of what is wrong.
pub fn service_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for root in [json::parse(text), yaml::parse(text)] {
        match root {
            Ok(Some(tree::Node {
                kind: tree::Kind::List(entries),
                ..
            })) => {
                for entry in entries {
                    if let Err(flaw) = StaticEntry::deserialize(entry) {
                        assert!(is_inside(&flaw, text), "{flaw:?}");
                    }
                }
            }
            Ok(_) => {}
            Err(flaw) => assert!(is_inside(&flaw, text), "{flaw:?}"),
        }
    }
}

/// Whether a mistake is on a line of the text, or at its end.
fn is_inside(flaw: &tree::Flaw, text: &str) -> bool {
    let lines = text.split(['\n', '\r']).count();
    flaw.place
        .is_some_and(|place| (1..=lines + 1).contains(&place.line) && place.column > 0)
}

/// The answer of a name server to the question that it names.
pub fn dns_answer(data: &[u8]) {
    let Ok(message) = Message::from_vec(data) else {
        return;
    };
    let Some(question) = message.queries.first() else {
        return;
    };
    let kind = match question.query_type() {
        RecordType::SRV => Kind::Srv,
        RecordType::AAAA => Kind::Aaaa,
        _ => Kind::A,
    };
    match answer::read((question.name(), kind), &message.answers, 0) {
        Ok(answer::Read::Found(data, _)) => assert!(data.len() <= message.answers.len()),
        Ok(answer::Read::Alias(name, _, _)) => {
            assert!(name != *question.name(), "an alias of itself is followed");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
