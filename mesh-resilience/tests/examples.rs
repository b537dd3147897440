//! The examples run, and show what they say.

#[path = "../examples/axum.rs"]
#[expect(dead_code, reason = "its main is not called here")]
mod axum_example;
#[path = "../examples/reqwest.rs"]
#[expect(dead_code, reason = "its main is not called here")]
mod reqwest_example;
#[path = "../examples/tonic.rs"]
#[expect(dead_code, reason = "its main is not called here")]
mod tonic_example;

#[tokio::test]
async fn a_client_of_reqwest_retries_and_stops_calling_what_is_down() {
    let story = reqwest_example::run().await;
    assert_eq!(
        story.map_err(|error| error.to_string()),
        Ok([
            "order 7: 200 OK after 3 attempts",
            "order 8: 503 Service Unavailable",
            "order 8: circuit breaker is open",
            "the breaker is OPEN, opened 1 time",
        ]
        .map(str::to_owned)
        .to_vec())
    );
}

#[tokio::test]
async fn a_server_of_axum_answers_for_its_layers() {
    let story = axum_example::run().await;
    assert_eq!(
        story.map_err(|error| error.to_string()),
        Ok([
            "ann orders: 200 OK",
            "ann orders: 503 Service Unavailable retry-after \"1\"",
            "bob report: 504 Gateway Timeout",
            "ann orders: 200 OK",
            "ann orders: 429 Too Many Requests",
            "eve orders: 200 OK",
        ]
        .map(str::to_owned)
        .to_vec())
    );
}

#[tokio::test]
async fn a_client_of_tonic_tells_its_deadline_and_stops_calling_what_is_down() {
    let story = tonic_example::run().await;
    assert_eq!(
        story.map_err(|error| error.to_string()),
        Ok([
            "status 1 after 3 attempts",
            "the server was given 2 s",
            "the breaker is open",
        ]
        .map(str::to_owned)
        .to_vec())
    );
}
