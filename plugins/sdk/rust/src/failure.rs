//! Conveniences on what goes wrong.

use crate::kv::Full;
use crate::{Failure, Refusal};

impl Failure {
    /// One sentence for people, without the plugin's name, and no code.
    ///
    /// ```
    /// # use locule_plugin::Failure;
    /// let failure = "12a".parse::<u32>().map_err(Failure::new).unwrap_err();
    /// assert_eq!(failure.message, "invalid digit found in string");
    /// ```
    pub fn new(message: impl ToString) -> Self {
        Self { code: 0, message: message.to_string() }
    }

    /// With a number of the plugin's own, for those who handle its failures.
    pub fn with_code(self, code: u32) -> Self {
        Self { code, ..self }
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { code: 0, message }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.reason())
    }
}

impl From<Full> for Failure {
    fn from(full: Full) -> Self {
        match full {
            Full::Keys(allowed) => format!("the store holds {allowed} keys, and takes no more"),
            Full::Size(allowed) => format!("the store takes no more than {allowed} bytes at once"),
            Full::Failed(why) => format!("cannot store a value: {why}"),
        }
        .into()
    }
}

impl Refusal {
    /// Why, in words.
    ///
    /// ```
    /// # use locule_plugin::Refusal;
    /// let refusal = Refusal::Conflict("stamp".into());
    /// assert_eq!(refusal.reason(), "the plugin stamp has set this before");
    /// ```
    pub fn reason(&self) -> String {
        match self {
            Self::Conflict(plugin) => format!("the plugin {plugin} has set this before"),
            Self::Denied(why) | Self::Invalid(why) => why.clone(),
        }
    }
}
