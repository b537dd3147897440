//! What a decision costs in memory, whatever the policy is like: nothing.

use std::alloc::System;

use benches::policies;
use benches::policies::NOW;
use benches::policies::SERVICE;
use mesh_auth::policy::Policy;
use mesh_auth::policy::Query;
use stats_alloc::INSTRUMENTED_SYSTEM;
use stats_alloc::Region;
use stats_alloc::StatsAlloc;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn decisions_over_ten_thousand_rules_of_any_shape_allocate_nothing() {
    let domain = policies::domain();
    for shape in policies::shapes(10_000) {
        let policy = Policy::build(&shape.policy, &domain).unwrap();
        for call in &shape.calls {
            let query = Query::new(&call.caller, SERVICE, NOW)
                .with_port(call.port)
                .with_request(&call.request);
            let region = Region::new(ALLOCATOR);
            let decision = policy.decide(&query);
            let change = region.change();
            let case = format!("{} {}", shape.name, call.name);
            assert_eq!(decision.is_allowed(), call.is_allowed, "{case}");
            assert_eq!((change.allocations, change.reallocations), (0, 0), "{case}");
        }
    }
}
