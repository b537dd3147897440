//! What is given where a service gave no good answer.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::header;
use mesh_resilience::fallback::stale::StaleConfig;

use super::Fault;
use super::bounded;
use super::edit::fields;
use super::matching::never_seen;
use crate::config::FallbackConfig;
use crate::config::FixedAnswerConfig;
use crate::config::StaleAnswerConfig;
use crate::route::Fallback;
use crate::route::FixedAnswer;
use crate::route::MAX_ANSWER_BYTES;
use crate::route::MAX_LIST;
use crate::route::RouteProblem;
use crate::route::StaleAnswers;

pub(super) fn fallback(config: &FallbackConfig) -> Result<Fallback, Fault> {
    if config.service.is_none() && config.stale.is_none() && config.answer.is_none() {
        let problem = RouteProblem::NoneOf("service, stale and answer");
        return Err((".fallback".to_owned(), problem));
    }
    Ok(Fallback {
        service: config.service.as_deref().map(Arc::from),
        stale: config.stale.as_ref().map(stale).transpose()?,
        answer: config.answer.as_ref().map(answer).transpose()?,
    })
}

fn stale(config: &StaleAnswerConfig) -> Result<StaleAnswers, Fault> {
    let key = ".fallback.stale";
    let bytes = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let kept = StaleConfig::default()
        .with_max_age(config.max_age)
        .with_max_bytes(bytes(config.max_bytes.get()))
        .with_max_answer_bytes(bytes(config.max_answer_bytes.get()));
    let wrong = |why| (key.to_owned(), RouteProblem::Layer(why));
    kept.check().map_err(wrong)?;
    bounded(&config.fields, &format!("{key}.fields"))?;
    let fields = config.fields.iter().zip(0..).map(|(name, index)| {
        field(name).map_err(|problem| (format!("{key}.fields[{index}]"), problem))
    });
    Ok(StaleAnswers {
        config: kept,
        fields: fields.collect::<Result<_, _>>()?,
    })
}

/// The name of a request's field that an answer may depend on.
fn field(name: &str) -> Result<HeaderName, RouteProblem> {
    let name =
        HeaderName::try_from(name).map_err(|_invalid| RouteProblem::FieldName("a header field"))?;
    if PERSONAL.contains(&name) {
        let why = "nothing is kept of calls that have it";
        return Err(RouteProblem::NeverSeen(why));
    }
    match never_seen(&name) {
        Some(why) => Err(RouteProblem::NeverSeen(why)),
        None => Ok(name),
    }
}

fn answer(config: &FixedAnswerConfig) -> Result<FixedAnswer, Fault> {
    let key = ".fallback.answer";
    let wrong = |below: &str, problem| Err((format!("{key}{below}"), problem));
    let status = match StatusCode::from_u16(config.status) {
        Ok(status) if (200..600).contains(&config.status) => status,
        _ => return wrong(".status", RouteProblem::Status("200 to 599")),
    };
    let count = config.headers.len();
    if count > MAX_LIST {
        return wrong(".headers", RouteProblem::TooLong { count });
    }
    let mut headers = HeaderMap::new();
    for (name, value) in fields(&config.headers, &format!("{key}.headers"))? {
        if name == header::CONTENT_TYPE {
            let why = "content_type says it";
            return wrong(".headers.content-type", RouteProblem::Forbidden(why));
        }
        headers.append(name, value);
    }
    if let Some(kind) = &config.content_type {
        match HeaderValue::try_from(kind) {
            Ok(kind) if !kind.is_empty() => drop(headers.insert(header::CONTENT_TYPE, kind)),
            _ => return wrong(".content_type", RouteProblem::HeaderValue),
        }
    }
    let has_no_body = [
        StatusCode::NO_CONTENT,
        StatusCode::RESET_CONTENT,
        StatusCode::NOT_MODIFIED,
    ];
    if !config.body.is_empty() && has_no_body.contains(&status) {
        return wrong(".body", RouteProblem::NoBody(status));
    }
    if config.body.len() > MAX_ANSWER_BYTES {
        return wrong(".body", RouteProblem::BodyTooLong);
    }
    Ok(FixedAnswer {
        status,
        headers,
        body: Bytes::from(config.body.clone()),
    })
}

const PERSONAL: [HeaderName; 3] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
];
