//! How far a job is, which its program says in lines on standard error: `::progress 40 resizing`.

/// What a job says of itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Progress {
    /// From 0 to 100.
    pub(super) percent: Option<f64>,
    pub(super) text: String,
}

impl Progress {
    /// What such a line says, without its end; `None` if it is another line.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let rest = line.strip_prefix(PREFIX)?;
        let rest = String::from_utf8_lossy(rest);
        let rest = rest.strip_prefix([' ', '\t']).or(rest.is_empty().then_some(""))?.trim();
        let (first, text) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        Some(match first.trim_end_matches('%').parse::<f64>() {
            Ok(percent) => Self::new(Some(percent), text),
            Err(_) => Self::new(None, rest),
        })
    }

    /// It, with a number that makes sense and a text that is not too long.
    pub(super) fn new(percent: Option<f64>, text: &str) -> Self {
        let percent = percent.filter(|percent| percent.is_finite()).map(|percent| percent.clamp(0.0, 100.0));
        let text = text.trim();
        Self { percent, text: text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned() }
    }

    /// In one piece of text.
    pub(super) fn told(&self) -> String {
        match (self.percent, self.text.as_str()) {
            (Some(percent), "") => format!("{percent} %"),
            (Some(percent), text) => format!("{percent} % {text}"),
            (None, text) => text.to_owned(),
        }
    }
}

const PREFIX: &[u8] = b"::progress";
const TEXT_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_progress_has_a_number_a_text_or_both() {
        let told = |line: &str| Progress::read(line.as_bytes()).map(|progress| progress.told());
        assert_eq!(told("::progress 40 resizing images").as_deref(), Some("40 % resizing images"));
        assert_eq!(told("::progress 12.5%").as_deref(), Some("12.5 %"));
        assert_eq!(told("::progress nearly there").as_deref(), Some("nearly there"));
        assert_eq!(told("::progress 1000").as_deref(), Some("100 %"));
        assert_eq!(told("::progress").as_deref(), Some(""));
        assert_eq!(told("::progressive"), None);
        assert_eq!(told("progress 40"), None);
    }
}
