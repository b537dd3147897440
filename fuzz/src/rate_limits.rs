//! What an operator may write into rules of the rate limit service, and what anybody may ask it.

use std::num::NonZeroUsize;
use std::time::Duration;
use std::time::Instant;

use mesh_resilience::limit::rls::Code;
use mesh_resilience::limit::rls::Descriptor;
use mesh_resilience::limit::rls::DescriptorConfig;
use mesh_resilience::limit::rls::DomainConfig;
use mesh_resilience::limit::rls::Judge;
use mesh_resilience::limit::rls::Question;

/// Rules in JSON, a zero byte, and a `RateLimitRequest`. What is refused is refused in a short line; what is asked falls under
/// the rule that a plain walk over what was written finds; and the answer keeps the limits.
#[expect(clippy::disallowed_methods, reason = "only what is added to it counts")]
pub fn rate_limit(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (Some(rules), asked) = (parts.next(), parts.next().unwrap_or_default()) else {
        return;
    };
    let question = match Question::decode(asked) {
        Ok(question) => Some(question),
        Err(error) => {
            short(&error.to_string());
            None
        }
    };
    let Ok(domains) = serde_json::from_slice::<Vec<DomainConfig>>(rules) else {
        return;
    };
    let few = NonZeroUsize::new(8).unwrap_or(NonZeroUsize::MIN);
    let judge = match Judge::new(&domains, few) {
        Ok(judge) => judge,
        Err(error) => {
            assert!(error.domain < domains.len());
            return short(&error.reason.to_string());
        }
    };
    if let Some(question) = question {
        ask(&judge, &domains, &question, Instant::now());
    }
}

fn ask(judge: &Judge, domains: &[DomainConfig], question: &Question, mut now: Instant) {
    for descriptor in &question.descriptors {
        let domain = domains
            .iter()
            .find(|config| config.domain == question.domain);
        let expected = domain.and_then(|config| walk(&config.descriptors, descriptor));
        let found = judge.rules().find(&question.domain, descriptor);
        let found = found.map(|rule| (rule.limit, rule.is_shadow));
        assert_eq!(found, expected, "{descriptor:?}");
    }
    for _ in 0..4 {
        let answer = match judge.judge(question, now) {
            Ok(answer) => answer,
            Err(error) => return short(&error.to_string()),
        };
        assert_eq!(answer.statuses.len(), question.descriptors.len());
        let is_over = |status: &_| matches!(status, Code::OverLimit);
        let any = answer.statuses.iter().any(|status| is_over(&status.code));
        assert_eq!(any, is_over(&answer.code));
        for status in &answer.statuses {
            if let Some(limit) = &status.limit {
                assert!(status.remaining <= limit.requests_per_unit, "{status:?}");
            }
        }
        if let Some(verdict) = answer.verdict() {
            assert_eq!(verdict.allowed, !any);
        }
        now += Duration::from_millis(300);
    }
}

/// The limit of a descriptor, by going over everything at each level.
fn walk(
    level: &[DescriptorConfig],
    descriptor: &Descriptor,
) -> Option<(Option<(u32, mesh_resilience::limit::rls::Unit)>, bool)> {
    let mut level = level;
    let mut last = None;
    for entry in &descriptor.entries {
        let value =
            |config: &DescriptorConfig| config.value.clone().filter(|text| !text.is_empty());
        let of_key = || level.iter().filter(|config| config.key == entry.key);
        let exact = of_key().find(|config| {
            value(config).is_some_and(|text| !text.ends_with('*') && text == entry.value)
        });
        let begins = of_key().find(|config| {
            let text = value(config);
            text.is_some_and(|text| {
                text.strip_suffix('*')
                    .is_some_and(|start| entry.value.starts_with(start))
            })
        });
        let any = of_key().find(|config| value(config).is_none());
        let found = exact.or(begins).or(any)?;
        level = &found.descriptors;
        last = Some(found);
    }
    let found = last?;
    let limit = found.rate_limit.as_ref()?;
    let rate = limit.requests_per_unit.zip(limit.unit);
    Some((rate, found.shadow_mode))
}

fn short(line: &str) {
    assert!(
        line.len() < 1000 && !line.contains(char::is_control),
        "{line}"
    );
}
