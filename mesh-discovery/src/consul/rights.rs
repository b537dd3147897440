//! Whether an empty answer means that there is nothing, or that the ACL token may not see it.
//!
//! Consul filters what a token may not read out of its answers. Since 1.11 it says so in a header; before, an answer
//! without rights is 200 and an empty list, as if there were nothing. Consul's own page asks `/v1/internal/acl/authorize`
//! what it may do, since 1.7, and so does this.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::Client;
use super::Error;
use super::exchange::Ask;

/// What was learnt of one path; asked anew after a minute.
#[derive(Debug, Default)]
pub(super) struct Rights {
    granted_at: Option<Instant>,
}

/// Something that may be read or not.
pub(super) type Resource<'a> = (&'static str, &'a str);

impl Rights {
    /// There is an answer, so what was learnt before is of no use for the next one that is empty.
    pub(super) fn forget(&mut self) {
        self.granted_at = None;
    }

    /// Says whether an empty answer to `asked` means that there is nothing, for all of `resources` may be read.
    ///
    /// # Errors
    ///
    /// [`Error::Filtered`], where the token may not read one of them, and what asking can fail with. A Consul that has no
    /// ACLs, or does not know the question, is taken at its word.
    pub(super) async fn check(
        &mut self,
        client: &Client,
        asked: &Ask,
        resources: &[Resource<'_>],
    ) -> Result<(), Error> {
        let is_known = |at: Instant| at.elapsed() < GOOD_FOR;
        if self.granted_at.is_some_and(is_known) {
            return Ok(());
        }
        let questions: Vec<_> = resources
            .iter()
            .map(
                |(resource, name)| json!({"Resource": resource, "Segment": name, "Access": "read"}),
            )
            .collect();
        let body = Bytes::from(serde_json::Value::from(questions).to_string());
        let mut ask = Ask::put(client, "/v1/internal/acl/authorize", body);
        ask.method = Method::POST;
        match ask.send(client).await {
            Ok(fetched) => {
                let verdicts: Vec<Verdict> = ask.decode(client, &fetched)?;
                let is_whole = verdicts.len() == resources.len();
                if !is_whole || verdicts.iter().any(|verdict| !verdict.allow) {
                    return Err(asked.filtered(client));
                }
            }
            // ACLs are off (401), or this Consul has no such question.
            Err(Error::Status {
                status: 401 | 404 | 405,
                ..
            }) => {}
            Err(error) => return Err(error),
        }
        self.granted_at = Some(Instant::now());
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Verdict {
    allow: bool,
}

const GOOD_FOR: Duration = Duration::from_mins(1);
