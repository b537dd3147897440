//! Medians, their confidence intervals, and tests of whether two things take the same time.

/// The middle of `values`, which are sorted by this.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    quantile(values, 0.5)
}

/// A quantile of sorted values.
pub(crate) fn quantile(sorted: &[f64], at: f64) -> f64 {
    sorted[rank(sorted.len(), at)]
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "there are fewer than 2^52 samples, and a share of them is none below 0"
)]
fn rank(len: usize, at: f64) -> usize {
    ((len as f64 * at) as usize).min(len - 1)
}

#[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52")]
pub(crate) fn count(len: usize) -> f64 {
    len as f64
}

/// What the differences of pairs say, one pair a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paired {
    pub(crate) median: f64,
    /// The 95 % confidence interval of the median.
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// Of the sign test: how far the number of positive differences is from half of them, in standard deviations.
    pub(crate) z: f64,
}

impl Paired {
    /// The bootstrap interval of a median needs no resampling: in the limit of many resamples its ends are the order
    /// statistics whose ranks the binomial distribution gives (Efron 1979, section 3).
    pub(crate) fn of(one: &[f64], other: &[f64]) -> Self {
        let mut differences: Vec<f64> = one
            .iter()
            .zip(other)
            .map(|(one, other)| one - other)
            .collect();
        let more = count(differences.iter().filter(|value| **value > 0.0).count());
        let less = count(differences.iter().filter(|value| **value < 0.0).count());
        let median = median(&mut differences);
        let half = 1.96 * 0.5 / count(differences.len()).sqrt();
        Self {
            median,
            low: quantile(&differences, 0.5 - half),
            high: quantile(&differences, 0.5 + half),
            z: (more - less) / (more + less).sqrt().max(1.0),
        }
    }

    pub(crate) fn half_width(&self) -> f64 {
        (self.high - self.low) / 2.0
    }

    /// The two-sided probability of a `z` as far from 0 as this, if both take the same time.
    pub(crate) fn p(&self) -> f64 {
        erfc(self.z.abs() / std::f64::consts::SQRT_2)
    }
}

/// The complementary error function, with a relative error below 1.2e-7 (Numerical Recipes, section 6.2).
fn erfc(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.5 * x);
    let terms = [
        0.170_872_77,
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
    ];
    let sum = terms.iter().fold(0.0, |sum, term| sum * t + term);
    t * (-x * x - 1.265_512_23 + t * sum).exp()
}

/// Mean, variance and number.
struct Moments {
    mean: f64,
    variance: f64,
    len: f64,
}

impl Moments {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let len = count(values.clone().count());
        let mean = values.clone().sum::<f64>() / len;
        let squares: f64 = values.map(|value| (value - mean).powi(2)).sum();
        Self {
            mean,
            variance: squares / (len - 1.0),
            len,
        }
    }
}

/// Samples of how long something took for an input that was right up to some byte.
pub(crate) struct Prefixes(Vec<(usize, f64)>);

impl Prefixes {
    /// Those that no interrupt made long: of all of them, whatever their input, the fastest nine tenths.
    pub(crate) fn new(samples: Vec<(usize, f64)>) -> Self {
        let mut times: Vec<f64> = samples.iter().map(|(_, time)| *time).collect();
        times.sort_unstable_by(f64::total_cmp);
        let limit = quantile(&times, 0.9);
        Self(
            samples
                .into_iter()
                .filter(|(_, time)| *time <= limit)
                .collect(),
        )
    }

    /// Welch's t of the longer prefixes against the shorter ones, from `middle` on.
    pub(crate) fn welch(&self, middle: usize) -> f64 {
        let half = |is_long: bool| {
            let of = self
                .0
                .iter()
                .filter(move |(at, _)| (*at >= middle) == is_long);
            Moments::of(of.map(|(_, time)| *time))
        };
        let (long, short) = (half(true), half(false));
        (long.mean - short.mean) / (long.variance / long.len + short.variance / short.len).sqrt()
    }

    /// The slope of time over prefix in nanoseconds a byte, and its t.
    pub(crate) fn slope(&self) -> (f64, f64) {
        let at = Moments::of(self.0.iter().map(|(at, _)| count(*at)));
        let time = Moments::of(self.0.iter().map(|(_, time)| *time));
        let products = self
            .0
            .iter()
            .map(|(x, y)| (count(*x) - at.mean) * (y - time.mean));
        let covariance = products.sum::<f64>() / (at.len - 1.0);
        let slope = covariance / at.variance;
        let residual = (time.variance - slope * covariance).max(0.0) / (at.len - 2.0);
        (slope, slope / (residual / at.variance).sqrt())
    }
}

#[test]
fn the_statistics_find_what_is_there_and_nothing_else() {
    let mut dice = super::Dice::new(1);
    let mut noise = |len: usize, shift: f64| -> Vec<f64> {
        let of = |dice: &mut super::Dice| count(dice.below(1_000)) + shift;
        (0..len).map(|_| of(&mut dice)).collect()
    };
    let (one, other, slower) = (noise(4_000, 0.0), noise(4_000, 0.0), noise(4_000, 60.0));
    let same = Paired::of(&one, &other);
    assert!(
        same.low < 0.0 && same.high > 0.0 && same.p() > 1e-3,
        "{same:?}"
    );
    let differs = Paired::of(&slower, &one);
    assert!(differs.low > 0.0 && differs.p() < 1e-5, "{differs:?}");
    assert!((erfc(1.0) - 0.157_299_2).abs() < 1e-6);

    let sloped = |slope: f64| {
        let of = |(at, time): (usize, &f64)| (at % 32, time + slope * count(at % 32));
        Prefixes::new(one.iter().enumerate().map(of).collect())
    };
    let (flat, steep) = (sloped(0.0), sloped(5.0));
    assert!(flat.slope().1.abs() < 4.5 && flat.welch(16).abs() < 4.5);
    assert!(steep.slope().1 > 4.5 && steep.welch(16) > 4.5);
}
