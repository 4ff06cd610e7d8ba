//! Numbers for people: durations, rates, times. Times are UTC and say so.

/// `12 s`, `3 min`, `5 h`, `2 d`: the largest unit that fits, as nobody needs the rest in a table.
pub(crate) fn duration_s(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `85 us`, `1.25 ms`, `2.10 s`.
pub(crate) fn micros(us: u64) -> String {
    let (ms, hundredths_ms) = (us / 1_000, us % 1_000 / 10);
    let (s, hundredths_s) = (us / 1_000_000, us % 1_000_000 / 10_000);
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{ms}.{hundredths_ms:02} ms"),
        _ => format!("{s}.{hundredths_s:02} s"),
    }
}

/// `512 B`, `1.2 KiB`, `34.0 MiB`, `1.5 GiB`: one digit behind the point, cut and not rounded, so that a limit that is nearly
/// reached does not look reached.
pub(crate) fn bytes(bytes: u64) -> String {
    let (unit, shift) = match bytes {
        0..1_024 => return format!("{bytes} B"),
        1_024..1_048_576 => ("KiB", 10),
        1_048_576..1_073_741_824 => ("MiB", 20),
        _ => ("GiB", 30),
    };
    let tenths = ((bytes & ((1 << shift) - 1)) * 10) >> shift;
    format!("{}.{tenths} {unit}", bytes >> shift)
}

/// `256 kbit/s`, `2 Mbit/s`, `2.5 Mbit/s`, of bytes a second: rates are spoken of in bits, as providers do.
pub(crate) fn rate(bytes_per_s: u64) -> String {
    let kbit = bytes_per_s.saturating_mul(8) / 1_000;
    match (kbit, kbit % 1_000 / 100) {
        (0..1_000, _) => format!("{kbit} kbit/s"),
        (_, 0) => format!("{} Mbit/s", kbit / 1_000),
        (_, tenths) => format!("{}.{tenths} Mbit/s", kbit / 1_000),
    }
}

/// `1 error`, `2 errors`.
pub(crate) fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// `2026-11-21 08:30:00Z` of seconds since 1970.
pub(crate) fn clock(unix_s: u64) -> String {
    let (year, month, day) = civil(unix_s / 86_400);
    let second = unix_s % 86_400;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

/// `2026-11` of seconds since 1970.
pub(crate) fn month(unix_s: u64) -> String {
    let (year, month, _) = civil(unix_s / 86_400);
    format!("{year:04}-{month:02}")
}

/// Year, month and day of a day since 1970, in the Gregorian calendar. Counts from 1 March of year 0, so that the
/// leap day is the last of its year; an era is 400 years or 146,097 days.
fn civil(day_since_1970: u64) -> (u64, u64, u64) {
    let day = day_since_1970 + 719_468;
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month = if months_since_march < 10 { months_since_march + 3 } else { months_since_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_the_largest_unit_that_fits() {
        let all =
            [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7_199, "1 h"), (86_399, "23 h"), (200_000, "2 d")];
        for (seconds, text) in all {
            assert_eq!(duration_s(seconds), text);
        }
    }

    #[test]
    fn round_trips_keep_three_digits() {
        for (us, text) in [(85, "85 us"), (1_250, "1.25 ms"), (999_999, "999.99 ms"), (2_100_000, "2.10 s")] {
            assert_eq!(micros(us), text);
        }
    }

    #[test]
    fn amounts_and_rates_take_the_unit_that_fits() {
        let amounts = [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_048_575, "1023.9 KiB"),
            (35_651_584, "34.0 MiB"),
            (u64::MAX, "17179869183.9 GiB"),
        ];
        for (amount, text) in amounts {
            assert_eq!(bytes(amount), text);
        }
        for (per_s, text) in
            [(0, "0 kbit/s"), (32_000, "256 kbit/s"), (250_000, "2 Mbit/s"), (312_500, "2.5 Mbit/s")]
        {
            assert_eq!(rate(per_s), text);
        }
    }

    #[test]
    fn days_are_right_around_leap_days_and_centuries() {
        let all = [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (951_868_800, "2000-03-01 00:00:00Z"),
            (1_795_249_800, "2026-11-21 08:30:00Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
        ];
        for (unix_s, text) in all {
            assert_eq!(clock(unix_s), text);
        }
    }
}
