//! What the compiler would compute before anything runs, where no fuel is counted.
//!
//! Operators between constants are applied while a template is compiled: again for every tail of a long chain of them, and without a look at what a repeated list comes to when it is written out. Templates
//! that rely on either are refused.

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt};

/// Longest chain of operators in one expression.
const OPERATORS_MAX: usize = 500;

/// Why a template cannot be compiled in bounded time, if it cannot: the line and the reason.
pub(super) fn objection(template: &Stmt<'_>) -> Option<(usize, String)> {
    let mut found = None;
    walk(template, &mut |expression| {
        let reason = if operators(expression) > OPERATORS_MAX {
            format!("an expression has more than {OPERATORS_MAX} operators in a row")
        } else if repeats_a_list(expression) {
            "a list is repeated by an operator".to_owned()
        } else {
            return true;
        };
        let line = usize::from(expression.span().start_line);
        found.get_or_insert((line, reason));
        false
    });
    found
}

/// The operators on the longest way down from here.
fn operators(expression: &Expr<'_>) -> usize {
    match expression {
        Expr::BinOp(operation) => 1 + operators(&operation.left).max(operators(&operation.right)),
        Expr::UnaryOp(operation) => 1 + operators(&operation.expr),
        Expr::Compare(comparison) => {
            let right = comparison.ops.iter().map(|op| operators(&op.expr));
            1 + right.max().unwrap_or(0).max(operators(&comparison.expr))
        }
        _ => 0,
    }
}

/// Whether it is a product of a list that is written out.
fn repeats_a_list(expression: &Expr<'_>) -> bool {
    fn is_list(expression: &Expr<'_>) -> bool {
        match expression {
            Expr::List(_) => true,
            Expr::BinOp(sum) => is_list(&sum.left) || is_list(&sum.right),
            _ => false,
        }
    }
    match expression {
        Expr::BinOp(product) if matches!(product.op, BinOpKind::Mul) => {
            is_list(&product.left) || is_list(&product.right)
        }
        _ => false,
    }
}

/// Calls `look` with every expression that stands in a statement, and with what is in it if `look` says so.
fn walk<'x>(statement: &'x Stmt<'_>, look: &mut dyn FnMut(&'x Expr<'x>) -> bool) {
    let mut bodies: Vec<&[Stmt<'_>]> = Vec::new();
    let mut expressions: Vec<&Expr<'_>> = Vec::new();
    match statement {
        Stmt::Template(template) => bodies.push(&template.children),
        Stmt::EmitExpr(emit) => expressions.push(&emit.expr),
        Stmt::ForLoop(lap) => {
            expressions.extend([&lap.target, &lap.iter].into_iter().chain(&lap.filter_expr));
            bodies.extend([&lap.body[..], &lap.else_body]);
        }
        Stmt::IfCond(cond) => {
            expressions.push(&cond.expr);
            bodies.extend([&cond.true_body[..], &cond.false_body]);
        }
        Stmt::WithBlock(with) => {
            let pairs = with.assignments.iter();
            expressions.extend(pairs.flat_map(|(target, value)| [target, value]));
            bodies.push(&with.body);
        }
        Stmt::Set(set) => expressions.extend([&set.target, &set.expr]),
        Stmt::SetBlock(set) => {
            expressions.extend(&set.filter);
            bodies.push(&set.body);
        }
        Stmt::AutoEscape(escape) => {
            expressions.push(&escape.enabled);
            bodies.push(&escape.body);
        }
        Stmt::FilterBlock(block) => {
            expressions.push(&block.filter);
            bodies.push(&block.body);
        }
        Stmt::Macro(decl) => {
            expressions.extend(decl.args.iter().chain(&decl.defaults));
            bodies.push(&decl.body);
        }
        Stmt::CallBlock(block) => {
            expressions.push(&block.call.expr);
            expressions.extend(block.call.args.iter().map(argument));
            let decl = &block.macro_decl;
            expressions.extend(decl.args.iter().chain(&decl.defaults));
            bodies.push(&decl.body);
        }
        Stmt::Do(call) => {
            expressions.push(&call.call.expr);
            expressions.extend(call.call.args.iter().map(argument));
        }
        Stmt::EmitRaw(_) | Stmt::Continue(_) | Stmt::Break(_) => {}
    }
    for expression in expressions {
        descend(expression, look);
    }
    for statement in bodies.into_iter().flatten() {
        walk(statement, look);
    }
}

fn descend<'x>(expression: &'x Expr<'_>, look: &mut dyn FnMut(&'x Expr<'x>) -> bool) {
    if !look(expression) {
        return;
    }
    let mut parts: Vec<&Expr<'_>> = Vec::new();
    match expression {
        Expr::Var(_) | Expr::Const(_) => {}
        Expr::Slice(slice) => {
            parts.push(&slice.expr);
            parts.extend(
                [&slice.start, &slice.stop, &slice.step]
                    .into_iter()
                    .flatten(),
            );
        }
        Expr::UnaryOp(operation) => parts.push(&operation.expr),
        Expr::BinOp(operation) => parts.extend([&operation.left, &operation.right]),
        Expr::Compare(comparison) => {
            parts.push(&comparison.expr);
            parts.extend(comparison.ops.iter().map(|op| &op.expr));
        }
        Expr::IfExpr(choice) => {
            parts.extend([&choice.test_expr, &choice.true_expr]);
            parts.extend(&choice.false_expr);
        }
        Expr::Filter(filter) => {
            parts.extend(&filter.expr);
            parts.extend(filter.args.iter().map(argument));
        }
        Expr::Test(test) => {
            parts.push(&test.expr);
            parts.extend(test.args.iter().map(argument));
        }
        Expr::GetAttr(attribute) => parts.push(&attribute.expr),
        Expr::GetItem(item) => parts.extend([&item.expr, &item.subscript_expr]),
        Expr::Call(call) => {
            parts.push(&call.expr);
            parts.extend(call.args.iter().map(argument));
        }
        Expr::List(list) => parts.extend(&list.items),
        Expr::Tuple(tuple) => parts.extend(&tuple.items),
        Expr::Map(map) => parts.extend(map.keys.iter().chain(&map.values)),
    }
    for part in parts {
        descend(part, look);
    }
}

fn argument<'x>(argument: &'x CallArg<'_>) -> &'x Expr<'x> {
    match argument {
        CallArg::Pos(value)
        | CallArg::Kwarg(_, value)
        | CallArg::PosSplat(value)
        | CallArg::KwargSplat(value) => value,
    }
}
