//! Which route takes a call: with no routes, and with 1, 100 and 1,000 of them.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::hint::black_box;

use criterion::BenchmarkId;
use criterion::Criterion;
use http::Request;
use mesh_auth::request::CanonicalRequest;
use mesh_auth::request::Limits;
use mesh_node::config::RouteConfig;
use mesh_node::route::Asked;
use mesh_node::route::RouteTable;

fn main() {
    let mut criterion = benches::criterion();
    find(&mut criterion);
    criterion.final_summary();
}

/// The last of all routes takes the call, so that nothing is cheaper than it may be.
fn find(criterion: &mut Criterion) {
    let request = Request::get("/api/v2/orders/7?q=1")
        .header("host", "orders")
        .header("x-user", "ada");
    let parts = request.body(()).unwrap().into_parts().0;
    let request = CanonicalRequest::new(parts, &Limits::default()).unwrap();
    let asked = Asked::new("orders", &request);
    let mut group = criterion.benchmark_group("route_find");
    let none = RouteTable::default();
    group.bench_function("none", |b| b.iter(|| none.find(black_box(&asked))));
    for count in [1, 100, 1000] {
        for (kind, others) in KINDS {
            let table = table(count, others);
            let found = table.find(&asked).route.map(|route| route.index);
            assert_eq!(found, Some(count - 1));
            let id = BenchmarkId::new(kind, count);
            group.bench_function(id, |b| b.iter(|| table.find(black_box(&asked))));
        }
    }
    group.finish();
}

/// Makes a route one of the others.
type Others = fn(&mut RouteConfig, usize);

/// Routes that do not match, and one that does.
fn table(count: usize, others: Others) -> RouteTable {
    let routes: Vec<RouteConfig> = (0..count)
        .map(|index| {
            let mut route = RouteConfig::default();
            route.name = format!("r{index}");
            if index + 1 < count {
                others(&mut route, index);
            }
            route
        })
        .collect();
    RouteTable::new(&routes).unwrap()
}

/// What the other routes are about.
const KINDS: [(&str, Others); 3] = [
    ("other_services", |route, index| {
        route.r#match.services = vec![format!("service-{index}")];
    }),
    ("other_paths", |route, index| {
        route.r#match.path = Some(format!("/api/{{version}}/other-{index}/*"));
    }),
    ("other_expressions", |route, index| {
        route.r#match.path_regex = Some(format!("^/api/v[0-9]+/other-{index}/"));
    }),
];
