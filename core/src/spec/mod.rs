//! config.json: parsing, checking, the default spec, the features document.
