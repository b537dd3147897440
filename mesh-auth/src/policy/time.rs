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

/// The day of a time, in seconds since the Unix epoch, as `2027-03-31`.
///
/// Days to civil date after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms" (`civil_from_days`).
pub(super) fn date(seconds: u64) -> String {
    let days = seconds.min(LAST_SECOND) / DAY + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

pub(super) const DAY: u64 = 86_400;
/// 9999-12-31T23:59:59Z: the last one with four digits of a year.
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::{DAY, date, parse_end};

    #[test]
    fn the_date_of_a_second_is_the_day_that_it_is_in() {
        for end in [
            "1970-01-01",
            "2024-02-29",
            "2027-03-31",
            "2100-03-01",
            "9999-12-31",
        ] {
            let after = parse_end(end).unwrap();
            assert_eq!(
                (date(after - 1), date(after - DAY)),
                (end.into(), end.into())
            );
        }
        assert_eq!(date(u64::MAX), "9999-12-31");
    }

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
