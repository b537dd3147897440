//! The layers around a service that says what reached it.
#![cfg(all(feature = "tower", feature = "policy", feature = "jwt"))]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Mutex;

use http::{Request, Response, StatusCode};
use mesh_auth::caller::Caller;
use mesh_auth::layer::{AuthenticateLayer, AuthorizeLayer};
use mesh_auth::policy::{Action, Decision, Policy, PolicyConfig, RuleConfig};
use mesh_auth::spiffe::{SpiffeId, TrustDomain};
use mesh_auth::token::{ApiKey, Consumer, UserVerifier};
use tower::ServiceExt as _;
use tower_layer::Layer as _;

fn policy(rules: &[RuleConfig]) -> Arc<Policy> {
    let config = rules
        .iter()
        .cloned()
        .fold(PolicyConfig::default(), PolicyConfig::with_rule);
    Arc::new(Policy::build(&config, &TrustDomain::parse("example.org").unwrap()).unwrap())
}

fn users_read() -> RuleConfig {
    RuleConfig::new("users-read", &["users"], "orders")
        .with_methods(&["GET"])
        .with_paths(&["/orders/*"])
}

fn layer(policy: Arc<Policy>) -> AuthorizeLayer {
    AuthorizeLayer::new("orders", policy, || 1_800_000_000)
}

fn users() -> Caller {
    let id = SpiffeId::parse("spiffe://example.org/users").unwrap();
    Caller::new(Some(id), None)
}

fn get(path: &str, caller: Option<Caller>) -> Request<String> {
    let mut request = Request::get(path)
        .header("host", "orders")
        .body(String::new())
        .unwrap();
    if let Some(caller) = caller {
        request.extensions_mut().insert(caller);
    }
    request
}

/// The answer to `request`, and the request as the service saw it, if it did.
async fn send(
    layer: &AuthorizeLayer,
    request: Request<String>,
) -> (Response<String>, Option<Request<String>>) {
    let seen = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&seen);
    let service = layer.layer(tower::service_fn(move |request: Request<String>| {
        *keep.lock().unwrap() = Some(request);
        std::future::ready(Ok::<_, Infallible>(Response::new("served".to_owned())))
    }));
    let response = service.oneshot(request).await.unwrap();
    let seen = seen.lock().unwrap().take();
    (response, seen)
}

#[tokio::test]
async fn passes_what_a_rule_allows_with_caller_and_decision() {
    let layer = layer(policy(&[users_read()]));
    let (response, seen) = send(&layer, get("/orders/7", Some(users()))).await;
    assert_eq!(response.body(), "served");
    let seen = seen.unwrap();
    let decision = seen.extensions().get::<Decision>().unwrap();
    assert_eq!(decision.rule.as_deref(), Some("users-read"));
    let caller = seen.extensions().get::<Caller>().unwrap();
    assert_eq!(caller.spiffe_id, users().spiffe_id);
}

#[tokio::test]
async fn refuses_the_rest_before_the_service() {
    let layer = layer(policy(&[users_read()]));
    let (response, seen) = send(&layer, get("/admin", Some(users()))).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(response.headers()["x-mesh-error"], "denied");
    assert!(seen.is_none() && response.body().is_empty());

    let (response, seen) = send(&layer, get("/orders/7", None)).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    assert!(seen.is_none());
}

// threat 10
#[tokio::test]
async fn the_service_sees_the_path_that_was_decided_about() {
    let deny = RuleConfig::new("no-admin", &["*"], "orders")
        .with_action(Action::Deny)
        .with_paths(&["/admin/*"]);
    let all = RuleConfig::new("all", &["users"], "orders");
    let layer = layer(policy(&[deny, all]));
    let (_, seen) = send(&layer, get("/admin/../orders//%37", Some(users()))).await;
    assert_eq!(seen.unwrap().uri().path(), "/orders/7");
    for path in ["/orders/../admin/x", "/%61dmin/x", "//admin/x"] {
        let (response, seen) = send(&layer, get(path, Some(users()))).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path}");
        assert!(seen.is_none(), "{path}");
    }
    for path in ["/orders/..%2fadmin", "/orders;/../admin", "/%2561dmin"] {
        let (response, seen) = send(&layer, get(path, Some(users()))).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(response.headers()["x-mesh-error"], "bad_request");
        assert!(seen.is_none(), "{path}");
    }
}

// threat 9
#[tokio::test]
async fn identities_that_a_caller_writes_itself_are_dropped() {
    let layer = layer(policy(&[users_read()]));
    let mut request = get("/orders/7", Some(users()));
    for name in ["x-forwarded-client-cert", "x-spiffe-id", "x-mesh-peer-id"] {
        let forged = "spiffe://example.org/admin".parse().unwrap();
        request.headers_mut().insert(name, forged);
    }
    let (_, seen) = send(&layer, request).await;
    let seen = seen.unwrap();
    assert!(seen.headers().keys().all(|name| name == "host"));
}

#[tokio::test]
async fn a_grpc_caller_gets_a_status_of_grpc() {
    let layer = layer(policy(&[]));
    let mut request = get("/orders.v1.Orders/Get", Some(users()));
    let grpc = "application/grpc".parse().unwrap();
    request.headers_mut().insert("content-type", grpc);
    let (response, _) = send(&layer, request).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["grpc-status"], "7");
    assert_eq!(response.headers()["content-type"], "application/grpc");
}

#[tokio::test]
async fn a_policy_is_replaced_while_the_service_runs() {
    let current = Arc::new(Mutex::new(policy(&[])));
    let source = Arc::clone(&current);
    let told = Arc::new(Mutex::new(Vec::new()));
    let verdicts = Arc::clone(&told);
    let layer = layer(policy(&[users_read()]))
        .with_policy_from(move || Arc::clone(&source.lock().unwrap()))
        .with_observer(move |_, decision| verdicts.lock().unwrap().push(decision.is_allowed()));
    let (response, _) = send(&layer, get("/orders/7", Some(users()))).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    *current.lock().unwrap() = policy(&[users_read()]);
    let (response, _) = send(&layer, get("/orders/7", Some(users()))).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(*told.lock().unwrap(), [false, true]);
}

/// A layer that knows one consumer with a token secret and an API key, and that key.
fn authenticate() -> (AuthenticateLayer, String) {
    let key = ApiKey::new(&[7; mesh_auth::token::RANDOM_BYTES]);
    let mut users = UserVerifier::new(16);
    let consumer = Consumer::new("shop", "shop-1", b"8c1f4ad7e20b95638c1d7fe40a2b6395");
    users
        .add_consumer(consumer.unwrap().with_groups(&["ops"]))
        .unwrap();
    users.add_api_key(key.hash(), "shop", &["ops"]).unwrap();
    let layer = AuthenticateLayer::new("orders", Arc::new(users), || 1_800_000_000);
    let name = http::HeaderName::from_static("x-api-key");
    (layer.with_api_key_header(name), key.expose().to_owned())
}

fn token(expires: u64) -> String {
    let claims =
        serde_json::json!({ "iss": "shop-1", "sub": "till-4", "aud": "orders", "exp": expires });
    let key = jsonwebtoken::EncodingKey::from_secret(b"8c1f4ad7e20b95638c1d7fe40a2b6395");
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

/// What both layers make of a request with these fields, where the group `ops` may do everything.
async fn through_both(
    authenticate: &AuthenticateLayer,
    fields: &[(&'static str, &str)],
) -> (Response<String>, Option<Request<String>>) {
    let all = RuleConfig::new("ops", &["group:ops"], "orders");
    let authorize = layer(policy(&[all]));
    let seen = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&seen);
    let service = tower::service_fn(move |request: Request<String>| {
        *keep.lock().unwrap() = Some(request);
        std::future::ready(Ok::<_, Infallible>(Response::new("served".to_owned())))
    });
    let mut request = get("/orders/7", Some(users()));
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let service = authenticate.layer(authorize.layer(service));
    let response = service.oneshot(request).await.unwrap();
    let seen = seen.lock().unwrap().take();
    (response, seen)
}

#[tokio::test]
async fn a_credential_makes_a_user_beside_the_certificate() {
    let (layer, key) = authenticate();
    let bearer = format!("Bearer {}", token(1_800_000_060));
    for field in [("authorization", &*bearer), ("x-api-key", &*key)] {
        let (response, seen) = through_both(&layer, &[field]).await;
        assert_eq!(response.body(), "served", "{field:?}");
        let seen = seen.unwrap();
        let caller = seen.extensions().get::<Caller>().unwrap();
        assert_eq!(caller.spiffe_id, users().spiffe_id);
        assert!(caller.user.as_ref().unwrap().has_group("ops"));
        assert!(!seen.headers().contains_key("x-api-key"));
    }
    let (response, _) = through_both(&layer, &[]).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_wrong_credential_is_never_taken_for_none() {
    let (layer, key) = authenticate();
    let (good, late) = (token(1_800_000_060), token(1_700_000_000));
    let [good, late] = [good, late].map(|token| format!("Bearer {token}"));
    let basic = "Basic c2hvcDpzaG9w";
    for fields in [
        &[("authorization", &*late)][..],
        &[("x-api-key", "mk_aaaa_bbbb")],
        &[("authorization", &good), ("authorization", &good)],
        &[("authorization", &good), ("x-api-key", &key)],
    ] {
        let (response, seen) = through_both(&layer, fields).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{fields:?}");
        assert_eq!(response.headers()["x-mesh-error"], "unauthenticated");
        assert!(seen.is_none());
    }
    // Another scheme is the service's business; here it makes nobody, and nobody may.
    let (response, _) = through_both(&layer, &[("authorization", basic)]).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let (response, _) = through_both(&layer.required(), &[("authorization", basic)]).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}
