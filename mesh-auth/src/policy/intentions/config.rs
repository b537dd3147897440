//! Intentions as Consul has them.

/// One intention of Consul: whether a service may call another.
///
/// Namespaces, partitions, peers and regular expressions have no place here: an intention that has them can't be
/// enforced, and whoever reads them from Consul has to refuse it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct IntentionConfig {
    /// Consul's id, where it gives one.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Option::is_none")
    )]
    pub id: Option<String>,
    /// The calling service, or `*` for every one.
    pub source: String,
    /// The called service, or `*` for every one.
    pub destination: String,
    /// What it does to each call. Absent where `permissions` say so.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Option::is_none")
    )]
    pub action: Option<IntentionAction>,
    /// What it does to which requests; the first that matches decides. A request that none matches is left to the rules
    /// and the default; a connection that is not HTTP is refused.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Vec::is_empty")
    )]
    pub permissions: Vec<IntentionPermission>,
}

impl IntentionConfig {
    /// An intention about every call of `source` to `destination`.
    pub fn new(source: &str, destination: &str, action: IntentionAction) -> Self {
        Self {
            action: Some(action),
            ..Self::with_permissions(source, destination, Vec::new())
        }
    }

    /// An intention about some requests of `source` to `destination`.
    pub fn with_permissions(
        source: &str,
        destination: &str,
        permissions: Vec<IntentionPermission>,
    ) -> Self {
        Self {
            id: None,
            source: source.to_owned(),
            destination: destination.to_owned(),
            action: None,
            permissions,
        }
    }

    /// Sets Consul's id.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }
}

/// What an intention does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[expect(
    clippy::exhaustive_enums,
    reason = "a third action would have to be handled everywhere"
)]
pub enum IntentionAction {
    /// The call may pass.
    Allow,
    /// The call must not pass.
    Deny,
}

/// What an intention does to some requests. All that is given must match.
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct IntentionPermission {
    /// What it does to them.
    pub action: IntentionAction,
    /// The path, exactly. Default: any.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Option::is_none")
    )]
    pub path_exact: Option<String>,
    /// How the path begins, within a segment too, as in Consul. Default: any. Not beside `path_exact`.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Option::is_none")
    )]
    pub path_prefix: Option<String>,
    /// Methods, in upper case. Default: any.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Vec::is_empty")
    )]
    pub methods: Vec<String>,
    /// What the headers have to be. Default: anything.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Vec::is_empty")
    )]
    pub headers: Vec<IntentionHeader>,
}

impl IntentionPermission {
    /// What is done to every request.
    pub fn new(action: IntentionAction) -> Self {
        Self {
            action,
            path_exact: None,
            path_prefix: None,
            methods: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// Sets the path.
    #[must_use]
    pub fn with_path_exact(mut self, path: &str) -> Self {
        self.path_exact = Some(path.to_owned());
        self
    }

    /// Sets how the path begins.
    #[must_use]
    pub fn with_path_prefix(mut self, prefix: &str) -> Self {
        self.path_prefix = Some(prefix.to_owned());
        self
    }

    /// Sets the methods; none means every method.
    #[must_use]
    pub fn with_methods(mut self, methods: &[&str]) -> Self {
        self.methods = methods.iter().map(|&method| method.to_owned()).collect();
        self
    }

    /// Adds what a header has to be.
    #[must_use]
    pub fn with_header(mut self, header: IntentionHeader) -> Self {
        self.headers.push(header);
        self
    }
}

/// What a header has to be. Of `present`, `exact`, `prefix`, `suffix` and `contains` one is given.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct IntentionHeader {
    /// The header's name.
    pub name: String,
    /// The request has it.
    pub present: bool,
    /// Its value, exactly.
    pub exact: Option<String>,
    /// How its value begins.
    pub prefix: Option<String>,
    /// How its value ends.
    pub suffix: Option<String>,
    /// A part of its value.
    pub contains: Option<String>,
    /// Whether upper and lower case letters count as the same (ASCII).
    pub ignore_case: bool,
    /// Whether the request matches where all of this is not so.
    pub invert: bool,
}

impl IntentionHeader {
    /// The request has the header.
    pub fn present(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            present: true,
            ..Self::default()
        }
    }

    /// The request has the header with exactly this value.
    pub fn exact(name: &str, value: &str) -> Self {
        Self {
            name: name.to_owned(),
            exact: Some(value.to_owned()),
            ..Self::default()
        }
    }
}
