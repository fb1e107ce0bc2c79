//! Where rows go.

mod csv;

pub use csv::Csv;
