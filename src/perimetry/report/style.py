"""The style sheet and the script of the page; the page is whole without the script."""

__all__ = ["SCRIPT", "STYLE"]

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--soft:#f5f7f9;--text:#1a1f26;--muted:#57606a;--rule:#d5dbe1;--accent:#0b5cad;
--good:#0a6b46;--goodbg:#dcf3e8;--bad:#a3280f;--badbg:#fde5df;--open:#6b5200;--openbg:#f8efcf;--hot:#f08a24;--tint:#3f8fd2;
--c0:#0072b2;--c1:#c2500a;--c2:#00805d;--c3:#8f4a8b;--c4:#8a6500;--c5:#4b5563}
@media(prefers-color-scheme:dark){:root{--bg:#0f1418;--soft:#182027;--text:#e7ebef;--muted:#9aa6b2;--rule:#303b45;
--accent:#7cbcf5;--good:#7fdcb2;--goodbg:#12382a;--bad:#ffab97;--badbg:#45190f;--open:#ecd48a;--openbg:#3b3110;--hot:#c2600c;
--tint:#2d6ea8;--c0:#56b4e9;--c1:#ff9750;--c2:#2fcb9c;--c3:#d99bd5;--c4:#e0b93a;--c5:#a9b4c0}}
*{box-sizing:border-box}html{scroll-behavior:smooth}@media(prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--bg);color:var(--text);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
header,main,footer,nav{max-width:1160px;margin:0 auto;padding:0 24px}header{padding-top:40px}footer{padding-bottom:56px}
h1{font-size:2rem;line-height:1.2;margin:0 0 4px;letter-spacing:-.015em}h2{font-size:1.35rem;margin:52px 0 6px;letter-spacing:-.01em}
h3{font-size:1.05rem;margin:28px 0 6px}p{margin:6px 0;max-width:78ch}.muted,.lead{color:var(--muted)}a{color:var(--accent)}
nav{position:sticky;top:0;background:var(--bg);border-bottom:1px solid var(--rule);padding-top:10px;padding-bottom:10px;z-index:2;
margin-top:18px}nav{display:flex;flex-wrap:wrap;gap:2px 18px}nav a{text-decoration:none;font-size:.92rem;white-space:nowrap}nav a:hover{text-decoration:underline}
h2{scroll-margin-top:84px}.verdicts{list-style:none;padding:0;margin:14px 0;border:1px solid var(--rule);border-radius:10px;overflow:hidden}
.verdicts li{padding:9px 16px 9px 44px;position:relative;border-top:1px solid var(--rule)}.verdicts li:first-child{border-top:0}
.verdicts li::before{position:absolute;left:16px;font-weight:700;content:"·"}
.verdicts .good::before{content:"✓";color:var(--good)}.verdicts .bad::before{content:"✗";color:var(--bad)}
.verdicts .open::before{content:"?";color:var(--open)}.verdicts .plain{background:var(--soft);font-weight:600}.verdicts .note{color:var(--muted)}
.sr{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.scroll{overflow-x:auto;margin:12px 0 20px}.scroll:focus-visible{outline:2px solid var(--accent);outline-offset:3px}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
caption{caption-side:top;text-align:left;color:var(--muted);padding:0 0 6px;max-width:90ch}
th,td{padding:5px 10px;border-bottom:1px solid var(--rule);text-align:left;vertical-align:top}tbody th{font-weight:550}
thead th{border-bottom:2px solid var(--rule);vertical-align:bottom;font-weight:650}.num{text-align:right;white-space:nowrap}
tbody tr:hover{background:var(--soft)}tr.main th::after{content:" ★";color:var(--accent)}tr.main{background:var(--soft)}
.cell{background:color-mix(in srgb,var(--tint) calc(var(--s)*34%),transparent)}.cell small{display:block;font-size:.74rem;opacity:.82}
thead button{all:unset;cursor:pointer}thead button:focus-visible{outline:2px solid var(--accent)}thead button::after{content:" ↕";opacity:.45}
.badge{display:inline-block;padding:0 8px;border-radius:99px;font-size:.78rem;line-height:1.5;background:var(--soft);border:1px solid var(--rule);white-space:nowrap}
.badge.good{background:var(--goodbg);color:var(--good);border-color:transparent}.badge.bad{background:var(--badbg);color:var(--bad);border-color:transparent}
.badge.open{background:var(--openbg);color:var(--open);border-color:transparent}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:8px 28px}
.figures figure{max-width:620px}figure{margin:14px 0}figcaption{font-size:.88rem;color:var(--muted);max-width:70ch}.plot{width:100%;height:auto;display:block}
.plot text{font:12px system-ui,sans-serif;fill:var(--text)}.plot .tick,.plot .axis,.plot .muted{fill:var(--muted)}
.grid{stroke:var(--rule);stroke-width:1}.level{stroke:var(--muted);stroke-dasharray:2 4}.level.strong{stroke:var(--c1);stroke-dasharray:none;stroke-width:1.6}
.line{fill:none;stroke:var(--c);stroke-width:2.1;stroke-linejoin:round}.band{fill:var(--c);opacity:.13}.mark *{fill:var(--c)}
.leader{stroke:var(--c);opacity:.5}.series .name{fill:var(--c);font-weight:600}.bar{fill:var(--c0);opacity:.8}
.c0{--c:var(--c0)}.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}.c4{--c:var(--c4)}.c5{--c:var(--c5)}
.example{border:1px solid var(--rule);border-radius:10px;padding:4px 18px 14px;margin:16px 0;break-inside:avoid}
.twins{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,380px),1fr));gap:4px 28px}.facts{font-size:.88rem}
.tokens{white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.75;margin:6px 0 10px;max-width:none}
.tokens span{background:color-mix(in srgb,var(--hot) calc(var(--h)*72%),transparent);border-radius:3px;padding:1px 0}
.key{display:inline-block;width:120px;height:11px;border-radius:3px;border:1px solid var(--rule);vertical-align:middle;margin:0 6px;
background:linear-gradient(90deg,transparent,color-mix(in srgb,var(--hot) 72%,transparent))}
.contexts{margin:0;padding-left:16px}.wide{min-width:380px;overflow-wrap:anywhere}mark{background:color-mix(in srgb,var(--hot) 45%,transparent);color:inherit}
details{margin:10px 0}summary{cursor:pointer;color:var(--accent)}code,pre{font:.88em ui-monospace,SFMono-Regular,Menlo,monospace}
td code{white-space:pre}pre{background:var(--soft);border:1px solid var(--rule);border-radius:8px;padding:12px 16px;overflow-x:auto}
@media(max-width:760px){nav{position:static}h2{scroll-margin-top:12px}}
@media print{nav{display:none}body{font-size:12px}details{display:block}.scroll{overflow:visible}}
"""
"""Style of the page, light and dark; the colours of series keep apart for colour-blind readers."""

SCRIPT = """
document.querySelectorAll('table').forEach(function(table){
  var heads=table.querySelectorAll('thead th');
  heads.forEach(function(head,column){
    var button=document.createElement('button');button.type='button';
    while(head.firstChild)button.appendChild(head.firstChild);head.appendChild(button);
    var down=false;
    button.addEventListener('click',function(){
      down=!down;
      function key(row){var cell=row.cells[column];if(!cell)return -Infinity;
        var text=(cell.dataset.value||cell.textContent).trim().replace('\\u2212','-');
        var value=parseFloat(text);return isNaN(value)?text.toLowerCase():value}
      var body=table.tBodies[0];
      Array.from(body.rows).map(function(row){return[key(row),row]}).sort(function(a,b){
        var order=typeof a[0]===typeof b[0]?(a[0]<b[0]?-1:a[0]>b[0]?1:0):(typeof a[0]==='number'?1:-1);
        return down?-order:order}).forEach(function(entry){body.appendChild(entry[1])});
      heads.forEach(function(other){other.removeAttribute('aria-sort')});
      head.setAttribute('aria-sort',down?'descending':'ascending')})})});
"""
"""Sorts a table by a column when its head is pressed; nothing else."""
