//! Flags that shape a completion, and their messages.

use clap::Args;
use proto::inference::v1::{
    Constraint, LogitBias, OutputOptions, Sampling, Stopping, constraint::Kind,
};

/// How tokens are chosen. What is left out stays at the service's default: greedy, nothing cut off, nothing penalised.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct Choice {
    /// Randomness; 0 always takes the most likely token [default: 0]
    #[arg(short, long, value_name = "T", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f32>,
    /// Keep the K most likely tokens; 0 keeps all
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<u32>,
    /// Keep the smallest set of tokens whose probabilities add up to P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) top_p: Option<f32>,
    /// Drop tokens less likely than this share of the most likely one
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) min_p: Option<f32>,
    /// Divide the logits of tokens seen so far
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    pub(crate) repetition_penalty: Option<f32>,
    /// Lower a token's logit for each time it was put out
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub(crate) frequency_penalty: Option<f32>,
    /// Lower the logit of tokens that were put out
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) presence_penalty: Option<f32>,
    /// Make a random choice repeatable
    #[arg(short, long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Add BIAS to one token's logit; may be repeated
    #[arg(long, value_name = "ID=BIAS", value_parser = parse_bias)]
    pub(crate) logit_bias: Vec<LogitBias>,
}

impl Choice {
    /// As the service takes it.
    pub(crate) fn to_proto(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            seed: self.seed,
            logit_bias: self.logit_bias.clone(),
        }
    }
}

/// When the completion ends.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Stopping")]
pub(crate) struct End {
    /// At most N tokens [default: until the context is full]
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) max_tokens: Option<u32>,
    /// Stop before this text; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Stop at this token; may be repeated
    #[arg(long, value_name = "ID")]
    pub(crate) stop_token: Vec<u32>,
    /// Go on past the model's own end
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// Do not stop before N tokens
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) min_tokens: u32,
}

impl End {
    /// As the service takes it.
    pub(crate) fn to_proto(&self) -> Stopping {
        Stopping {
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            stop_token_ids: self.stop_token.clone(),
            ignore_eos: self.ignore_eos,
            min_tokens: self.min_tokens,
        }
    }
}

/// What the output may be. A value that begins with `@` names a file that holds it.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Constraint")]
#[group(multiple = false)]
pub(crate) struct Language {
    /// Only JSON that fits this schema; @FILE reads it from a file
    #[arg(long, value_name = "SCHEMA", value_parser = text_or_file)]
    pub(crate) json_schema: Option<String>,
    /// Only text that matches this regular expression as a whole; @FILE reads it from a file
    #[arg(long, value_name = "REGEX", value_parser = text_or_file)]
    pub(crate) regex: Option<String>,
    /// Only words of this grammar, in Lark's notation; @FILE reads it from a file
    #[arg(long, value_name = "GRAMMAR", value_parser = text_or_file)]
    pub(crate) grammar: Option<String>,
}

impl Language {
    /// As the service takes it.
    pub(crate) fn to_proto(&self) -> Option<Constraint> {
        let kinds = [
            self.json_schema.clone().map(Kind::JsonSchema),
            self.regex.clone().map(Kind::Regex),
            self.grammar.clone().map(Kind::Grammar),
        ];
        let kind = kinds.into_iter().flatten().next()?;
        Some(Constraint { kind: Some(kind) })
    }
}

fn text_or_file(value: &str) -> Result<String, String> {
    match value.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}")),
        None => Ok(value.to_owned()),
    }
}

/// What is reported besides text.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Report")]
pub(crate) struct Report {
    /// Log-probability of every output token, and of the N most likely ones in its place
    #[arg(long, value_name = "N")]
    pub(crate) logprobs: Option<u32>,
    /// The same for the prompt's tokens
    #[arg(long, value_name = "N")]
    pub(crate) prompt_logprobs: Option<u32>,
}

impl Report {
    /// As the service takes it.
    pub(crate) fn to_proto(&self) -> Option<OutputOptions> {
        self.wants_table().then_some(OutputOptions {
            logprobs: self.logprobs,
            prompt_logprobs: self.prompt_logprobs,
        })
    }

    /// Log-probabilities were asked for.
    pub(crate) fn wants_table(&self) -> bool {
        self.logprobs.is_some() || self.prompt_logprobs.is_some()
    }
}

fn parse_bias(text: &str) -> Result<LogitBias, String> {
    let (id, bias) = text.split_once('=').ok_or("a bias looks like 42=-1.5")?;
    Ok(LogitBias {
        token_id: id
            .parse()
            .map_err(|error| format!("token id `{id}`: {error}"))?,
        bias: bias
            .parse()
            .map_err(|error| format!("bias `{bias}`: {error}"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_left_to_the_service() {
        assert_eq!(Choice::default().to_proto(), Sampling::default());
        assert_eq!(End::default().to_proto(), Stopping::default());
        assert_eq!(Report::default().to_proto(), None);
        assert_eq!(Language::default().to_proto(), None);
    }

    #[test]
    fn a_language_is_written_out_or_read() {
        let language = Language {
            regex: Some("a+".to_owned()),
            ..Language::default()
        };
        let kind = language.to_proto().and_then(|constraint| constraint.kind);
        assert_eq!(kind, Some(Kind::Regex("a+".to_owned())));
        assert_eq!(text_or_file("a@b"), Ok("a@b".to_owned()));
        let missing = text_or_file("@/nowhere/at/all").expect_err("there is no such file");
        assert!(missing.contains("/nowhere/at/all"), "{missing}");
    }

    #[test]
    fn biases_are_pairs() {
        assert_eq!(
            parse_bias("42=-1.5"),
            Ok(LogitBias {
                token_id: 42,
                bias: -1.5
            })
        );
        for bad in ["42", "x=1", "1=x", "-1=0"] {
            assert!(parse_bias(bad).is_err(), "{bad}");
        }
    }
}
