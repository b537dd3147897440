//! The two spellings of a rule's end.

/// Seconds since the Unix epoch of the first second that does not count any more: the end of the
/// day for `2027-03-31`, the very second for `2027-03-31T18:00:00Z`.
pub(super) fn parse_end(text: &str) -> Option<u64> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time.strip_suffix('Z')?)),
        None => (text, None),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let midnight = days_from_civil(year, month, day)?.checked_mul(DAY)?;
    let Some(time) = time else {
        return midnight.checked_add(DAY);
    };
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    midnight.checked_add(hour * 3600 + minute * 60 + second)
}

fn numbers(text: &str, separator: char, widths: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; 3];
    for (number, width) in numbers.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Days since 1970-01-01 in the Gregorian calendar, from 1970 on.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let february = if is_leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let index = usize::try_from(month.checked_sub(1)?).ok()?;
    if year < 1970 || day == 0 || day > *months.get(index)? {
        return None;
    }
    let years: u64 = (1970..year)
        .map(|year| if is_leap(year) { 366 } else { 365 })
        .sum();
    Some(years + months.iter().take(index).sum::<u64>() + day - 1)
}

const DAY: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::parse_end;

    #[test]
    fn a_date_counts_to_its_end_and_a_time_to_its_second() {
        assert_eq!(parse_end("1970-01-01"), Some(86_400));
        assert_eq!(parse_end("1970-01-01T00:00:01Z"), Some(1));
        assert_eq!(parse_end("2026-11-22T05:09:00Z"), Some(1_795_324_140));
        assert_eq!(parse_end("2024-02-29T00:00:00Z"), Some(1_709_164_800));
    }

    #[test]
    fn refuses_days_that_do_not_exist_and_other_spellings() {
        for text in [
            "2023-02-29",
            "2100-02-29",
            "2026-13-01",
            "2026-00-01",
            "2026-1-1",
            "22.11.2026",
            "",
            "2026-11-22T24:00:00Z",
            "2026-11-22T05:09:00",
            "1969-12-31",
            "2026-11-22-01",
        ] {
            assert_eq!(parse_end(text), None, "{text}");
        }
    }
}
