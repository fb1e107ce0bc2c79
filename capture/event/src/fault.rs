//! The kinds of fault that Faultline tells apart, and the labels that stand for them.

use std::fmt;
use std::str::FromStr;

macro_rules! faults {
    ($($number:literal $variant:ident $name:literal),+ $(,)?) => {
        /// A kind of fault, or none. The numbers are the labels of the data sets.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Fault { $($variant = $number),+ }

        impl Fault {
            /// In the order of their numbers.
            pub const ALL: [Self; [$($number),+].len()] = [$(Self::$variant),+];

            /// The name on command lines and in verdicts.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

faults! {
    0 Normal "normal",
    1 CpuThrottling "cpu-throttling",
    2 PacketLoss "packet-loss",
    3 LatencyJitter "latency-jitter",
    4 SynFlood "syn-flood",
    5 MemoryPressure "memory-pressure",
    6 DiskSaturation "disk-saturation",
    7 BacklogOverflow "backlog-overflow",
    8 ZeroWindow "zero-window",
    9 ConnectionChurn "connection-churn",
    10 DnsFailures "dns-failures",
    11 HttpErrors "http-errors",
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The number that stands in the `anomaly_label` column: a [`Fault`], or a number of the user's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(pub u16);

impl Label {
    pub const NORMAL: Self = Self(0);
    /// What a model says that knows normal rows alone: not normal, whatever it is.
    pub const ANOMALY: Self = Self(u16::MAX);

    /// The fault of that number, where there is one.
    pub fn fault(self) -> Option<Fault> {
        Fault::ALL.get(usize::from(self.0)).copied()
    }
}

impl From<Fault> for Label {
    fn from(fault: Fault) -> Self {
        Self(fault as u16)
    }
}

/// The name of [`Label::ANOMALY`].
const ANOMALY: &str = "anomaly";

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fault() {
            Some(fault) => fault.fmt(f),
            None if *self == Self::ANOMALY => ANOMALY.fmt(f),
            None => self.0.fmt(f),
        }
    }
}

/// A label that is neither a number nor a fault's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseLabelError(String);

impl fmt::Display for ParseLabelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
        write!(f, "`{}` is neither a number from 0 to 65535 nor one of {}", self.0, names.join(", "))
    }
}

impl std::error::Error for ParseLabelError {}

impl FromStr for Label {
    type Err = ParseLabelError;

    /// A number from 0 to 65535, a fault's name, or `anomaly`.
    fn from_str(text: &str) -> Result<Self, ParseLabelError> {
        if let Some(fault) = Fault::ALL.iter().find(|fault| fault.name() == text) {
            return Ok((*fault).into());
        }
        if text == ANOMALY {
            return Ok(Self::ANOMALY);
        }
        text.parse().map(Self).map_err(|_| ParseLabelError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_agree() {
        for (number, fault) in Fault::ALL.iter().enumerate() {
            assert_eq!(*fault as usize, number);
            assert_eq!(fault.name().parse(), Ok(Label::from(*fault)));
            assert_eq!(number.to_string().parse(), Ok(Label::from(*fault)));
        }
        assert_eq!("99".parse(), Ok(Label(99)));
        assert_eq!(Label::ANOMALY.to_string().parse(), Ok(Label::ANOMALY));
        assert!("packetloss".parse::<Label>().unwrap_err().to_string().contains("packet-loss"));
    }
}
