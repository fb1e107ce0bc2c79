//! Times as people and other programs write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use event::Timestamp;

/// The wall clock, in milliseconds of Unix time. Deliveries run by it; verdicts and incidents never do.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `2026-11-21T11:05:00.000000000Z`; a time before 1970 is printed as 1970.
pub fn to_rfc3339(time: Timestamp) -> String {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or_default();
    humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(nanos)).to_string()
}

/// Serde of a [`Timestamp`] as RFC 3339 text.
pub mod rfc3339 {
    use std::time::UNIX_EPOCH;

    use event::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    /// Writes it.
    pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::to_rfc3339(*time))
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = humantime::parse_rfc3339(&text).map_err(D::Error::custom)?;
        let since = time.duration_since(UNIX_EPOCH).map_err(D::Error::custom)?;
        let nanos = i64::try_from(since.as_nanos()).map_err(D::Error::custom)?;
        Ok(Timestamp::from_nanos(nanos))
    }
}
