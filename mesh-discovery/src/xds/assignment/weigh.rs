//! One weight for each endpoint, out of its own and its locality's.
//!
//! Traffic is shared out among the localities of a priority by their weights, and in a locality among its endpoints by
//! theirs: an endpoint's share is `locality / sum of localities * endpoint / sum of endpoints of the locality`. Where no
//! locality of an assignment has a weight, localities do not count and only the endpoints' own weights do. Where some have,
//! those without one get no traffic, as the API says.
//!
//! # Sources
//!
//! `endpoint_components.proto`, `load_balancing_weight` of `LocalityLbEndpoints` and `LbEndpoint`; gRFC A27, "EDS".

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use crate::endpoint::Endpoint;
use crate::xds::fields::LB_ENDPOINT;
use crate::xds::fields::LOCALITY_LB_ENDPOINTS;
use crate::xds::wire::Wrong;

/// Weights as they are received.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Weighing {
    localities: Vec<Locality>,
    /// Of each endpoint, its locality and its own weight.
    endpoints: Vec<(usize, u32)>,
}

#[derive(Clone, Debug, PartialEq)]
struct Locality {
    priority: u16,
    weight: Option<u32>,
    endpoints: u64,
}

impl Weighing {
    /// What is added from now on is of this locality.
    pub(super) fn enter_locality(&mut self, priority: u16, weight: Option<u32>) {
        self.localities.push(Locality {
            priority,
            weight,
            endpoints: 0,
        });
    }

    pub(super) fn add_endpoint(&mut self, weight: u32) {
        if let Some(locality) = self.localities.last_mut() {
            locality.endpoints += u64::from(weight);
            self.endpoints.push((self.localities.len() - 1, weight));
        }
    }

    /// Checks the whole and gives each endpoint its weight, those of each priority in proportion; leaves out the endpoints
    /// of localities that get no traffic.
    pub(super) fn apply(&self, endpoints: &mut Vec<Endpoint>) -> Result<(), Wrong> {
        let sums = self.sums()?;
        let are_localities_weighed = self
            .localities
            .iter()
            .any(|locality| locality.weight.is_some());
        let shares: Vec<Option<f64>> = self
            .endpoints
            .iter()
            .map(|(index, weight)| {
                let locality = self.localities.get(*index)?;
                if !are_localities_weighed {
                    return Some(f64::from(*weight));
                }
                let of_locality = f64::from(locality.weight.filter(|weight| *weight > 0)?);
                let all = f64::from(*sums.get(&locality.priority)?);
                let of_endpoint = f64::from(*weight) / f64::from(small(locality.endpoints)?);
                Some(of_locality / all * of_endpoint)
            })
            .collect();
        let mut largest: BTreeMap<u16, f64> = BTreeMap::new();
        for (endpoint, share) in endpoints.iter().zip(&shares) {
            let largest = largest.entry(endpoint.priority).or_default();
            *largest = largest.max(share.unwrap_or_default());
        }
        for (endpoint, share) in endpoints.iter_mut().zip(&shares) {
            let largest = largest.get(&endpoint.priority).copied().unwrap_or(1.0);
            endpoint.weight = scaled(share.unwrap_or_default(), largest, are_localities_weighed);
        }
        let mut shares = shares.into_iter();
        endpoints.retain(|_| shares.next().flatten().is_some());
        Ok(())
    }

    /// The sum of the localities' weights of each priority.
    fn sums(&self) -> Result<BTreeMap<u16, u32>, Wrong> {
        let mut sums: BTreeMap<u16, u64> = BTreeMap::new();
        for locality in &self.localities {
            *sums.entry(locality.priority).or_default() +=
                u64::from(locality.weight.unwrap_or_default());
            if small(locality.endpoints).is_none() {
                let reason = "of the endpoints of a locality add up to more than 2^32-1";
                return Err(Wrong::new(&LB_ENDPOINT, 4, reason));
            }
        }
        let sums = sums.into_iter();
        let sums = sums.map(|(priority, sum)| Some((priority, small(sum)?)));
        let sums: BTreeMap<u16, u32> = sums.collect::<Option<_>>().ok_or_else(|| {
            let reason = "of the localities of a priority add up to more than 2^32-1";
            Wrong::new(&LOCALITY_LB_ENDPOINTS, 3, reason)
        })?;
        for (expected, priority) in sums.keys().enumerate() {
            if usize::from(*priority) != expected {
                let reason = format!("is {priority} somewhere and {expected} nowhere");
                return Err(Wrong::new(&LOCALITY_LB_ENDPOINTS, 5, reason));
            }
        }
        Ok(sums)
    }
}

/// A sum, where it is not past 2^32-1.
fn small(sum: u64) -> Option<u32> {
    u32::try_from(sum).ok()
}

/// Weights stay as they are where they fit; otherwise the largest of the priority becomes the largest that there is.
fn scaled(share: f64, largest: f64, is_fraction: bool) -> NonZeroU16 {
    let weight = if is_fraction || largest > f64::from(u16::MAX) {
        share / largest * f64::from(u16::MAX)
    } else {
        share
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is between 0 and 65,535, and such casts saturate"
    )]
    let weight = weight.round() as u16;
    NonZeroU16::new(weight).unwrap_or(NonZeroU16::MIN)
}
