"""How the page looks: one style sheet, in the page itself."""

from __future__ import annotations

STYLE = """
:root { --ink: #1d2430; --soft: #667085; --line: #e2e6ec; --back: #f5f7fa; --card: #fff;
  --used: #2f6fed; --offered: #f0a63a; --free: #dfe7f3; --good: #14804a; --bad: #c0362c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a2b3; --line: #2c3442;
  --back: #12161d; --card: #1a202a; --free: #2a3444; --good: #4cc38a; --bad: #ff7b72; } }
* { box-sizing: border-box; }
body { font: 14px/1.45 system-ui, sans-serif; margin: 0; color: var(--ink); background: var(--back); }
main, header { max-width: 1280px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 22px; }
h1 { font-size: 22px; margin: 0; }
h2 { font-size: 16px; margin: 28px 0 10px; }
h3 { font-size: 15px; margin: 0 8px 0 0; }
.soft { color: var(--soft); } code { font: 12px ui-monospace, monospace; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 16px 0 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 16px;
  min-width: 130px; }
.tile b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; margin: 0 0 14px;
  overflow-x: auto; }
.head { display: flex; flex-wrap: wrap; align-items: baseline; gap: 6px 10px; padding: 10px 14px; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: 5px 14px; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
th { font-weight: 600; color: var(--soft); font-size: 12px; white-space: nowrap; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th.number { text-align: right; }
.resources td:nth-child(1) { width: 130px; } .resources td:nth-child(2) { width: 200px; }
.resources td.number { width: 110px; }
.bar { display: flex; width: 150px; height: 10px; border-radius: 5px; overflow: hidden;
  background: var(--free); margin-top: 5px; }
.bar i { display: block; height: 100%; } .used { background: var(--used); }
.offered { background: var(--offered); }
.cells { display: flex; flex-wrap: wrap; gap: 2px; width: 190px; margin-top: 3px; }
.cells i { width: 10px; height: 10px; border-radius: 2px; background: var(--free); }
.cells i.used { background: var(--used); } .cells i.offered { background: var(--offered); }
.key { display: flex; gap: 14px; font-size: 12px; color: var(--soft); align-items: center; }
.key i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 5px;
  background: var(--free); } .key i.used { background: var(--used); }
.key i.offered { background: var(--offered); }
.tag { border: 1px solid var(--line); border-radius: 10px; padding: 0 8px; font-size: 12px;
  white-space: nowrap; } .off { color: var(--bad); border-color: var(--bad); }
.TASK_RUNNING, .TASK_FINISHED, .connected { color: var(--good); }
.TASK_FAILED, .TASK_ERROR, .TASK_LOST, .TASK_DROPPED, .TASK_GONE, .TASK_UNREACHABLE,
.TASK_GONE_BY_OPERATOR, .disconnected { color: var(--bad); }
a { color: var(--used); text-decoration: none; } a:hover { text-decoration: underline; }
.none { padding: 10px 14px; color: var(--soft); }
footer { max-width: 1280px; margin: 20px auto 40px; padding: 0 20px; color: var(--soft); font-size: 12px; }
"""
