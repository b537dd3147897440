//! The keys that mean something where a registry lets people write down what they like of an endpoint, for who writes
//! a source.
//!
//! They are the same in every registry: Consul's service meta, etcd's values, xDS' filter metadata `mesh`.
//!
//! | key | field | value |
//! |---|---|---|
//! | `version` | [`Endpoint::version`] | text |
//! | `zone` | [`Endpoint::zone`] | text |
//! | `weight` | [`Endpoint::weight`] | a whole number from 1 to 65535 |
//! | `spiffe_id` | [`Endpoint::spiffe_id`] | `spiffe://…` |
//! | `public_key_fingerprint` | [`Endpoint::public_key_fingerprint`] | text |
//!
//! All others become [`Endpoint::metadata`] as they are.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use crate::endpoint::Endpoint;
use crate::error::Error;

/// Takes `metadata` over into `endpoint`, whose id must be the right one already; an empty value counts as none.
///
/// # Errors
///
/// [`Error::Field`], where a weight is none. The other fields are checked with all endpoints, by
/// [`Endpoints::sift`](crate::Endpoints::sift).
pub fn apply(
    metadata: impl IntoIterator<Item = (String, String)>,
    endpoint: &mut Endpoint,
) -> Result<(), Error> {
    for (key, value) in metadata {
        let text = (!value.is_empty()).then_some(value);
        match &*key {
            VERSION => endpoint.version = text,
            ZONE => endpoint.zone = text,
            SPIFFE_ID => endpoint.spiffe_id = text,
            FINGERPRINT => endpoint.public_key_fingerprint = text,
            WEIGHT => {
                if let Some(text) = text {
                    endpoint.weight = weight(&endpoint.id, &text)?;
                }
            }
            _ => drop(endpoint.metadata.insert(key, text.unwrap_or_default())),
        }
    }
    Ok(())
}

/// What to write down of `endpoint`, so that [`apply`] makes it the same. The weight is left out where it is 1.
pub fn of(endpoint: &Endpoint) -> BTreeMap<&str, String> {
    let mut metadata: BTreeMap<&str, String> = endpoint
        .metadata
        .iter()
        .map(|(key, value)| (&**key, value.clone()))
        .collect();
    let known = [
        (VERSION, &endpoint.version),
        (ZONE, &endpoint.zone),
        (SPIFFE_ID, &endpoint.spiffe_id),
        (FINGERPRINT, &endpoint.public_key_fingerprint),
    ];
    for (key, value) in known {
        // What the field says counts, also where it says nothing.
        metadata.remove(key);
        metadata.extend(value.clone().map(|value| (key, value)));
    }
    metadata.remove(WEIGHT);
    if endpoint.weight != NonZeroU16::MIN {
        metadata.insert(WEIGHT, endpoint.weight.to_string());
    }
    metadata
}

/// A weight in text.
fn weight(id: &str, text: &str) -> Result<NonZeroU16, Error> {
    // No sign and no space: what two readers could read differently is refused.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let weight = is_number.then(|| text.parse().ok()).flatten();
    weight.ok_or_else(|| Error::field(id, "weight", "use a whole number from 1 to 65535"))
}

const VERSION: &str = "version";
const ZONE: &str = "zone";
const WEIGHT: &str = "weight";
const SPIFFE_ID: &str = "spiffe_id";
const FINGERPRINT: &str = "public_key_fingerprint";

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint::new("10.0.0.7".parse().unwrap(), 80)
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_is_written_down_reads_back_the_same() {
        let mut full = endpoint();
        full.version = Some("1.2".to_owned());
        full.zone = Some("a".to_owned());
        full.weight = NonZeroU16::MAX;
        full.spiffe_id = Some("spiffe://example.org/orders".to_owned());
        full.public_key_fingerprint = Some("SHA256:x".to_owned());
        full.metadata.insert("team".to_owned(), "shop".to_owned());
        for written in [full, endpoint()] {
            let metadata = of(&written)
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value));
            let mut read = endpoint();
            apply(metadata, &mut read).unwrap();
            assert_eq!(read, written);
        }
        assert!(of(&endpoint()).is_empty());
    }

    #[test]
    fn a_key_that_is_a_field_never_comes_from_free_metadata() {
        let mut odd = endpoint();
        odd.metadata.insert("weight".to_owned(), "7".to_owned());
        odd.metadata.insert("zone".to_owned(), "b".to_owned());
        assert!(of(&odd).is_empty());
    }

    #[test]
    fn an_empty_value_is_none() {
        let mut read = endpoint();
        apply(
            pairs(&[("zone", ""), ("weight", ""), ("team", "")]),
            &mut read,
        )
        .unwrap();
        assert_eq!((read.zone, read.weight), (None, NonZeroU16::MIN));
        assert_eq!(read.metadata.get("team").map(String::as_str), Some(""));
    }

    // threat 51
    #[test]
    fn a_weight_that_is_none_is_refused_and_names_the_endpoint() {
        for bad in ["0", "-1", "+1", " 1", "1.5", "65536", "4294967296", "x"] {
            let error = apply(pairs(&[("weight", bad)]), &mut endpoint()).unwrap_err();
            assert!(error.to_string().contains("10.0.0.7:80"), "{error}");
        }
    }
}
