//! What the application sees of a call that failed.

use std::time::Duration;

use mesh_resilience::breaker::BreakerOpen;
use mesh_resilience::bulkhead::BulkheadFull;
use mesh_resilience::find_cause;
use mesh_resilience::timeout::TimedOut;
use mesh_transport::BoxError;

use super::chain;
use crate::discovery::control_planes::Dropped;
use crate::respond::Code;
use crate::respond::Refusal;
use crate::stack::endpoints::Unpicked;
use crate::stack::send::CallerBrokeOff;

/// The one table from what the stack failed with to what the application sees.
pub(super) fn failed(name: &str, error: &BoxError) -> Refusal {
    if let Some(open) = find_cause::<BreakerOpen>(error) {
        let message = format!(
            "the circuit breaker of {name} is open after repeated failures; try again later"
        );
        return Refusal::new(Code::CircuitOpen, message).with_retry_after(open.retry_after);
    }
    if find_cause::<BulkheadFull>(error).is_some() {
        let message = format!("too many requests to {name} are under way; try again later");
        return Refusal::new(Code::Overloaded, message).with_retry_after(Duration::from_secs(1));
    }
    if let Some(dropped) = find_cause::<Dropped>(error) {
        let refusal = Refusal::new(Code::Overloaded, dropped.to_string());
        return refusal.with_retry_after(Duration::from_secs(1));
    }
    if let Some(timed_out) = find_cause::<TimedOut>(error) {
        let message = format!("{name} gave no answer within {:?}", timed_out.after);
        return Refusal::new(Code::Timeout, message);
    }
    if let Some(broke_off) = find_cause::<CallerBrokeOff>(error) {
        return Refusal::new(Code::BadRequest, broke_off.to_string());
    }
    if let Some(unpicked) = find_cause::<Unpicked>(error) {
        let message = match unpicked {
            Unpicked::NoEndpoints => {
                format!("no endpoint of {name} is known; look at discovery.sources")
            }
            Unpicked::NotInSubset => {
                format!("no endpoint of {name} is in the subset that its route wants")
            }
            Unpicked::Gone => format!("the instance of {name} that took the call before is gone"),
        };
        return Refusal::new(Code::NoEndpoints, message);
    }
    tracing::warn!(service = %name, error = %chain(error.as_ref()), "call failed");
    // The local application may know why: it is on this side of the trust boundary.
    let message = format!("{name} could not answer: {}", chain(error.as_ref()));
    Refusal::new(Code::UpstreamFailed, message)
}
