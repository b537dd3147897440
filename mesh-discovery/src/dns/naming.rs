//! The names under which services are asked for.

use std::collections::BTreeMap;

use hickory_resolver::proto::rr::Name;

use super::Config;
use super::Error;
use crate::name::ServiceName;

/// Makes absolute names.
#[derive(Debug)]
pub(super) struct Naming {
    template: String,
    names: BTreeMap<ServiceName, Name>,
}

impl Naming {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let wrong = |template: &str, reason| Error::Template {
            template: template.to_owned(),
            reason,
        };
        let template = &config.template;
        if !template.contains(PLACE) {
            return Err(wrong(
                template,
                "it has no {service}, so that all would have one name",
            ));
        }
        if absolute(&template.replace(PLACE, "a")).is_none() {
            return Err(wrong(template, NO_NAME));
        }
        let mut names = BTreeMap::new();
        for (service, text) in &config.names {
            let name = absolute(text).ok_or_else(|| wrong(text, NO_NAME))?;
            names.insert(service.clone(), name);
        }
        Ok(Self {
            template: template.clone(),
            names,
        })
    }

    pub(super) fn of(&self, service: &ServiceName) -> Result<Name, Error> {
        if let Some(name) = self.names.get(service) {
            return Ok(name.clone());
        }
        absolute(&self.template.replace(PLACE, service.as_str())).ok_or_else(|| Error::Name {
            service: service.clone(),
        })
    }
}

/// `text` as an absolute name in lower case, if it is one of letters, digits, `-` and `_`.
fn absolute(text: &str) -> Option<Name> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if text.is_empty() || !text.bytes().all(is_plain) {
        return None;
    }
    let mut name = Name::from_ascii(text.to_ascii_lowercase()).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Where the service's own name goes.
const PLACE: &str = "{service}";
const NO_NAME: &str = "use labels of 1 to 63 letters, digits, `-` and `_`";

#[cfg(test)]
mod tests {
    use super::*;

    fn name(template: &str, service: &str) -> Result<String, String> {
        let service = ServiceName::parse(service).unwrap();
        Naming::new(&Config::new(template))
            .and_then(|naming| naming.of(&service))
            .map(|name| name.to_ascii())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_absolute_and_in_lower_case() {
        for (template, expected) in [
            (
                "_mesh._tcp.{service}.Example.org",
                "_mesh._tcp.order-service.example.org.",
            ),
            ("{service}.example.org.", "order-service.example.org."),
            ("{service}", "order-service."),
        ] {
            assert_eq!(name(template, "Order-Service").unwrap(), expected);
        }
    }

    #[test]
    fn a_template_that_makes_no_names_is_refused() {
        for bad in [
            "",
            "example.org",
            "{service}..org",
            "{service}.ex ample",
            "{service}.\u{fc}",
            "{other}.org",
        ] {
            assert!(name(bad, "orders").is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_that_would_be_too_long_is_an_error_of_that_service() {
        let long = "a".repeat(64);
        let error = name("{service}.example.org", &long).unwrap_err();
        assert!(error.contains(&long), "{error}");
    }

    #[test]
    fn single_services_have_names_of_their_own() {
        let mut config = Config::new("{service}.example.org");
        let orders = ServiceName::parse("orders").unwrap();
        config
            .names
            .insert(orders.clone(), "legacy.example.net".to_owned());
        let naming = Naming::new(&config).unwrap();
        assert_eq!(
            naming.of(&orders).unwrap().to_ascii(),
            "legacy.example.net."
        );
    }
}
