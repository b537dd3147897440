//! Whether one rule matches whatever another one matches. Where this is hard to tell, the answer is no.

use crate::policy::path;
use crate::policy::rule::Rule;
use crate::policy::source::{ANY, Source, UserMatch};

/// Whether `wide` matches every call that `narrow` matches, as long as `wide` has not ended.
pub(super) fn covers(wide: &Rule, narrow: &Rule) -> bool {
    let (to, narrow_to) = (&wide.config.to, &narrow.config.to);
    (to.service == ANY || to.service == narrow_to.service)
        && each(&narrow.sources, &wide.sources, covers_source)
        && part(&narrow.users, &wide.users, covers_user)
        && part(&narrow_to.ports, &to.ports, |wide, narrow| wide == narrow)
        && part(&narrow.methods, &wide.methods, |wide, narrow| {
            wide == narrow
        })
        && part(&narrow.paths, &wide.paths, path::covers)
        && match (wide.end, narrow.end) {
            (None, _) => true,
            (Some(wide), Some(narrow)) => wide >= narrow,
            (Some(_), None) => false,
        }
        && (wide.config.when.is_none() || wide.config.when == narrow.config.when)
}

/// For a part that is open where its list is empty.
fn part<T>(narrow: &[T], wide: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    wide.is_empty() || (!narrow.is_empty() && each(narrow, wide, covers))
}

fn each<T>(narrow: &[T], wide: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    narrow
        .iter()
        .all(|narrow| wide.iter().any(|wide| covers(wide, narrow)))
}

fn covers_source(wide: &Source, narrow: &Source) -> bool {
    match (wide, narrow) {
        (Source::Any, Source::Anonymous) => false,
        (Source::Any, _) => true,
        (Source::Domain(domain), Source::Id(id)) => id.trust_domain() == domain,
        (Source::Domain(domain), Source::Below(prefix)) => {
            prefix.starts_with(&format!("spiffe://{domain}/"))
        }
        (Source::Below(wide), Source::Id(id)) => id.as_str().starts_with(&**wide),
        (Source::Below(wide), Source::Below(narrow)) => narrow.starts_with(&**wide),
        _ => wide == narrow,
    }
}

fn covers_user(wide: &UserMatch, narrow: &UserMatch) -> bool {
    *wide == UserMatch::Any || wide == narrow
}
