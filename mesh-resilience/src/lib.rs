//! Circuit breaker, retry with budget, timeout, bulkhead, rate limit and balancing as tower layers
