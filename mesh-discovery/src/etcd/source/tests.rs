//! A stream of watches that has fallen silent.

use super::*;

// threat 50
#[test]
fn watches_that_answer_no_question_twice_in_a_row_are_given_up() {
    let mut session = Session::default();
    session.ask_progress().unwrap();
    session.ask_progress().unwrap();
    let error = session.ask_progress().unwrap_err();
    assert!(!error.is_of_one_request(), "it ends the connection");
    assert_eq!(
        error.to_string(),
        "etcd gave no answer twice in a row when asked whether its watches are up to date"
    );
    assert_eq!(session.to_send.len(), 2);
    session.unanswered = 0;
    session.ask_progress().unwrap();
}
