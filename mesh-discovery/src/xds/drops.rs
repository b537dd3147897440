//! Requests that a control plane wants dropped before they are sent, because there are too many.

/// A share of the requests to a service that is to be refused with an error instead of being sent.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropOverload {
    /// Why, in the control plane's words, as `throttle`.
    pub category: String,
    /// How many of a million requests, at most 1,000,000.
    pub per_million: u32,
}

/// The first category that drops this request, if one does; `random` gives a new number at each call.
///
/// Each category drops its share of what those before it have let pass.
///
/// # Sources
///
/// `ClusterLoadAssignment.Policy.drop_overloads` of `endpoint.proto`; gRFC A32, which gives the order.
pub fn dropped_by(
    drops: &[DropOverload],
    mut random: impl FnMut() -> u64,
) -> Option<&DropOverload> {
    drops
        .iter()
        .find(|drop| random() % MILLION < u64::from(drop.per_million))
}

const MILLION: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_category_drops_its_share_of_what_is_left() {
        let drop = |category: &str, per_million| DropOverload {
            category: category.to_owned(),
            per_million,
        };
        let drops = [drop("a", 0), drop("b", 500_000), drop("c", 1_000_000)];
        assert_eq!(dropped_by(&drops, || 0), drops.get(1));
        assert_eq!(dropped_by(&drops, || 499_999), drops.get(1));
        assert_eq!(dropped_by(&drops, || 500_000), drops.get(2));
        assert_eq!(dropped_by(&[], || 0), None);
    }
}
