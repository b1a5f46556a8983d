//! What is added to a compiled template: the checks that its compiler leaves out.
//!
//! # Why instructions are changed
//! Fuel bounds the instructions that run and the bytes that they make, but not the size of a value that holds another one many times over (`[x, x]` forty times, `[x] * 100000000`), which costs nothing until
//! something writes it out; nor its depth, which is the stack that dropping it takes; nor does anything keep a namespace from holding itself. All of these are made by a few instructions, so behind each of
//! them goes a call of a function that looks at the value made. In front of a loop goes one that refuses `none`, which Python cannot iterate. The names of these functions are no names in Jinja: a template
//! can neither call nor replace them.

use minijinja::machinery::{Instruction, Instructions};
use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

/// Looks at a value that was made.
const MADE: &str = "<made>";
/// Looks at a value that is to be kept in a namespace.
const KEPT: &str = "<kept>";
/// Looks at a value that is to be iterated.
const ITERATED: &str = "<iterated>";

/// Deepest nesting of a value; JSON brings at most 128 levels.
const DEPTH_MAX: usize = 160;
/// So many items are looked at for one unit of fuel.
const ITEMS_PER_FUEL: usize = 16;

/// Adds the functions that [`hardened`] templates call. `value_bytes_max`: the most bytes of text that one value may stand for.
pub(super) fn add_checks(environment: &mut Environment<'_>, value_bytes_max: usize) {
    environment.add_function(MADE, move |state: &State<'_, '_>, value: Rest<Value>| {
        one(value, |value| check(state, value, value_bytes_max))
    });
    environment.add_function(KEPT, |value: Rest<Value>| {
        one(value, |value| match value.kind() {
            ValueKind::Plain => Err(refused("only data can be assigned to a namespace")),
            _ if is_namespace(value) => Err(refused("a namespace cannot hold a namespace")),
            _ => Ok(()),
        })
    });
    environment.add_function(ITERATED, |value: Rest<Value>| {
        one(value, |value| match value.kind() {
            ValueKind::None => Err(refused("none is not iterable")),
            _ => Ok(()),
        })
    });
}

/// The same program with its checks.
pub(super) fn hardened<'s>(plain: &Instructions<'s>) -> Instructions<'s> {
    let mut instructions = Vec::new();
    while let Some(instruction) = plain.get(index(instructions.len())) {
        instructions.push(instruction.clone());
    }
    // Where the group of each instruction begins; the last entry is the end, which jumps may lead to.
    let mut starts = Vec::with_capacity(instructions.len() + 1);
    let mut length = 0;
    for instruction in &instructions {
        starts.push(length);
        length += index(checks_before(instruction).len() + checks_behind(instruction).len() + 1);
    }
    starts.push(length);
    let mut program = Instructions::new(plain.name(), plain.source());
    for (at, mut instruction) in instructions.into_iter().enumerate() {
        let line = plain.get_line(index(at)).unwrap_or(0);
        let line = u16::try_from(line).unwrap_or(u16::MAX);
        let (before, behind) = (checks_before(&instruction), checks_behind(&instruction));
        retarget(&mut instruction, &starts);
        let group = before.iter().chain([&instruction]).chain(behind);
        for instruction in group {
            program.add_with_line(instruction.clone(), line);
        }
    }
    program
}

fn index(position: usize) -> u32 {
    u32::try_from(position).expect("a template is too short for so many instructions")
}

fn checks_before(instruction: &Instruction<'_>) -> &'static [Instruction<'static>] {
    match instruction {
        Instruction::PushLoop(_) => &[Instruction::CallFunction(ITERATED, Some(1))],
        // The namespace lies on top of the value.
        Instruction::SetAttr(_) => &[
            Instruction::Swap,
            Instruction::CallFunction(KEPT, Some(1)),
            Instruction::Swap,
        ],
        _ => &[],
    }
}

fn checks_behind(instruction: &Instruction<'_>) -> &'static [Instruction<'static>] {
    match instruction {
        Instruction::BuildList(_)
        | Instruction::BuildTuple(_)
        | Instruction::BuildMap(_)
        | Instruction::Add
        | Instruction::Mul
        | Instruction::Slice
        | Instruction::ApplyFilter(..)
        | Instruction::CallFunction(..)
        | Instruction::CallMethod(..)
        | Instruction::CallObject(..) => &[Instruction::CallFunction(MADE, Some(1))],
        _ => &[],
    }
}

/// Leads a jump to where its target has gone.
fn retarget(instruction: &mut Instruction<'_>, starts: &[u32]) {
    match instruction {
        Instruction::Iterate(target)
        | Instruction::Jump(target)
        | Instruction::JumpIfFalse(target)
        | Instruction::JumpIfFalseOrPop(target)
        | Instruction::JumpIfTrueOrPop(target)
        | Instruction::BuildMacro(_, target, _) => *target = starts[*target as usize],
        _ => {}
    }
}

/// Passes the one argument through if `look` finds nothing. A list of arguments, because a single one may not be undefined.
fn one(value: Rest<Value>, look: impl FnOnce(&Value) -> Result<(), Error>) -> Result<Value, Error> {
    let value = value.first().cloned().unwrap_or_default();
    look(&value)?;
    Ok(value)
}

fn refused(reason: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

fn is_namespace(value: &Value) -> bool {
    value
        .as_object()
        .is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

/// Walks all that a value stands for.
fn check(state: &State<'_, '_>, value: &Value, bytes_max: usize) -> Result<(), Error> {
    if value.as_object().is_none() {
        return Ok(());
    }
    let mut walk = Walk {
        state,
        items: 0,
        bytes: 0,
        bytes_max,
    };
    walk.below(value, 0)
}

struct Walk<'s, 't, 'e> {
    state: &'s State<'t, 'e>,
    items: usize,
    bytes: usize,
    bytes_max: usize,
}

impl Walk<'_, '_, '_> {
    fn item(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.items += 1;
        if self.items.is_multiple_of(ITEMS_PER_FUEL) {
            self.state.consume_fuel(1)?;
        }
        if depth > DEPTH_MAX {
            return Err(refused("a value is nested too deep"));
        }
        if is_namespace(value) {
            return Err(refused("a value cannot hold a namespace"));
        }
        // A number takes a few bytes too.
        let bytes = value.as_str().map_or(8, |text| text.len() + 2);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.bytes_max {
            return Err(Error::new(
                ErrorKind::OutOfFuel,
                "a value stands for too much text",
            ));
        }
        self.below(value, depth)
    }

    fn below(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => {
                for item in value.try_iter()? {
                    self.item(&item, depth + 1)?;
                }
            }
            ValueKind::Map => {
                for key in value.try_iter()? {
                    self.item(&key, depth + 1)?;
                    self.item(&value.get_item(&key)?, depth + 1)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::chat::ChatError;
    use crate::chat::environment::tests::rendered;

    fn too_much(source: &str) {
        let outcome = rendered(source);
        assert!(
            matches!(outcome, Err(ChatError::TooMuch { .. })),
            "{source}: {outcome:?}"
        );
    }

    fn fails(source: &str, words: &str) {
        match rendered(source) {
            Err(ChatError::Failed { reason, .. }) => {
                assert!(reason.contains(words), "{source}: {reason}")
            }
            other => panic!("{source}: {other:?}"),
        }
    }

    #[test]
    fn work_is_bounded() {
        too_much(
            "{% for a in range(10000) %}{% for b in range(10000) %}{% for c in range(10000) %}{% endfor %}{% endfor %}{% endfor %}",
        );
        too_much(
            "{% for a in range(100000) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' * 1000 }}{% endfor %}",
        );
        fails(
            "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
            "recursion",
        );
        fails(
            "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
            "recursion",
        );
    }

    #[test]
    fn memory_is_bounded() {
        too_much(
            "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        );
        too_much(
            "{% set ns = namespace(x=[1]) %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        );
        too_much("{{ 'a' * 1000000000 }}");
        too_much("{% set n = 90000000 %}{% with a = [1] %}{{ (a * n) ~ '' }}{% endwith %}");
        too_much("{{ 'x'.ljust(2000000000) }}");
        too_much("{{ 'x'|indent(2000000000, true) }}");
        too_much("{% with a = [1, 1] %}{% set n = 9000000 %}{{ (a * n)|join }}{% endwith %}");
        too_much("{% set a = ['aaaaaaaaaaaaaaaa' * 10000] %}{{ a * 100 }}");
        too_much("{% set x %}{% for i in range(100000) %}{{ 'a' * 1000 }}{% endfor %}{% endset %}");
    }

    #[test]
    fn values_that_hold_one_another_are_sized_by_what_they_stand_for() {
        let mut source = "{% with a0 = [1, 1] %}".to_owned();
        for level in 1..60 {
            source += &format!("{{% with a{level} = [a{}, a{}] %}}", level - 1, level - 1);
        }
        source += "{{ a59 ~ '' }}";
        source += &"{% endwith %}".repeat(60);
        too_much(&source);
        let mut source = "{% set x = [1] %}".to_owned();
        source += &"{% set x = x|chain(x) %}".repeat(60);
        too_much(&source);
    }

    #[test]
    fn depth_is_bounded() {
        fails(
            "{% set ns = namespace(x=[]) %}{% for i in range(50000) %}{% set ns.x = [ns.x] %}{% endfor %}",
            "nested too deep",
        );
        fails(
            "{% set ns = namespace(x={}) %}{% for i in range(50000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}",
            "nested too deep",
        );
        fails(
            &("{% set x = [] %}".to_owned() + &"{% set x = [[[[[[[[x]]]]]]]] %}".repeat(50)),
            "nested too deep",
        );
        fails(
            &format!("{{{{ [1]{} }}}}", "|batch(1)".repeat(1000)),
            "nested too deep",
        );
    }

    #[test]
    fn namespaces_hold_nothing_that_could_hold_them() {
        fails(
            "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
            "namespace",
        );
        fails(
            "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}",
            "namespace",
        );
        fails("{% set ns = namespace(x=namespace()) %}", "namespace");
        fails(
            "{% set ns = namespace() %}{% set ns.x = range %}",
            "namespace",
        );
    }

    #[test]
    fn nothing_is_computed_before_fuel_counts() {
        for source in [
            "{{ ([1] * 90000000) ~ '' }}".to_owned(),
            "{% if x is defined %}{{ [x, 1 ~ [2] * 9 * 9]|join }}{% endif %}".to_owned(),
            format!("{{% macro m(a={}1) %}}{{% endmacro %}}", "1~".repeat(600)),
            format!(
                "{{% call m(x, y={}1) %}}{{% endcall %}}",
                "1 + ".repeat(600)
            ),
        ] {
            let outcome = rendered(&source);
            assert!(
                matches!(outcome, Err(ChatError::Invalid { line: Some(1), .. })),
                "{source}: {outcome:?}"
            );
        }
        assert_eq!(
            rendered("{{ 'ab' * 3 }}{{ [2][0] * 3 }}").as_deref(),
            Ok("ababab6")
        );
    }

    #[test]
    fn what_needs_much_stack_to_compile_has_it() {
        for source in [
            format!("{{{{ {}1 }}}}", "1~".repeat(60_000)),
            format!("{{{{ {}1 }}}}", "1+".repeat(60_000)),
            format!("{{{{ 1{} }}}}", "|e".repeat(60_000)),
            format!("{{{{ x{} }}}}", ".x".repeat(60_000)),
            format!("{{{{ {}1 }}}}", "not ".repeat(30_000)),
            format!("{{{{ {} }}}}", "[".repeat(100_000)),
            format!("{{{{ {}1{} }}}}", "(".repeat(60_000), ")".repeat(60_000)),
            format!("{{% if 0 %}}{}{{% endif %}}", "{%elif 0%}".repeat(12_000)),
            "{%if 1%}".repeat(16_000),
            format!("{{{{ 1 {}}}}}", "if 1 else 1 ".repeat(10_000)),
        ] {
            // Whether it is refused or rendered, it comes back.
            drop(rendered(&source));
        }
    }

    #[test]
    fn nothing_cannot_be_iterated() {
        fails("{% for x in none %}{% endfor %}", "none is not iterable");
        assert_eq!(
            rendered("{% for x in missing %}{% else %}e{% endfor %}").as_deref(),
            Ok("e")
        );
    }

    #[test]
    fn programs_still_do_what_they_did() {
        let source = "{% macro m(a, b=2) -%}{% if a > 1 and b %}{{ a }}{{ caller() }}{% else %}-{% endif %}{%- endmacro %}\
            {% for a in range(4) if a != 2 %}{% call m(a) %}c{% endcall %}{% if loop.last %}!{% endif %}{% else %}e{% endfor %}\
            {% for n in [{'k': 1, 'c': [{'k': 2, 'c': []}]}] recursive %}{{ n.k }}{{ loop(n.c) }}{% endfor %}\
            {% set ns = namespace(a=1) %}{% set ns.a, b = 2, 3 %}{{ ns.a or 'x' }}{{ b and 'y' }}{{ 'z' if ns.missing }}";
        assert_eq!(rendered(source).as_deref(), Ok("--3c!122y"));
    }

    #[test]
    fn failures_still_name_their_line() {
        let outcome = rendered("a\n{% for x in [1] %}\n{{ 'a' ~ 2 }}\n{{ x.y.z }}{% endfor %}");
        assert!(
            matches!(outcome, Err(ChatError::Failed { line: Some(4), .. })),
            "{outcome:?}"
        );
        let outcome = rendered("a\n{% if %}");
        assert!(
            matches!(outcome, Err(ChatError::Invalid { line: Some(2), .. })),
            "{outcome:?}"
        );
    }
}
