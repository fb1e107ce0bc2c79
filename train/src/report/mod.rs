//! What is told about a model beside its file: a card in Markdown, a report with plots.

mod card;
mod html;
mod plot;

pub use card::card;
pub use html::html;

/// A share or a score with three decimals, or a dash where it is not defined.
fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

/// As the beginning of a sentence.
fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
