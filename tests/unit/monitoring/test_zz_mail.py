import sys; sys.path.insert(0,"/work/main/tests/unit/monitoring")
from monitoring_scene import *
from evergreen.monitoring.judge import judge
from evergreen.monitoring.policy import apply
from evergreen.alerting.outbox import deliver
def test_mail(scene, monkeypatch):
    w=scene(trigger={"m":2,"n":3}); w.champion()
    w.live(2, change=lambda f: f.assign(amount=f.amount*9/5+32, y=f.y+3))
    judge(w.specs,w.spec,at(2),"monitor__watched/m1")
    d=apply(w.spec,at(2),"monitor__watched/m1"); print(d)
    w.live(1, first=2, change=lambda f: f.assign(kind=None))
    judge(w.specs,w.spec,at(3),"monitor__watched/m2"); print(apply(w.spec,at(3),"monitor__watched/m2"))
    print([f.__dict__ for f in judge(w.specs,w.spec,at(3.5),"monitor__watched/m3")]); apply(w.spec,at(3.5),"monitor__watched/m3")
    msgs=[]; print(deliver(w.specs,msgs.append))
    for m in msgs: print(m["Subject"]); print(m.get_body(("plain",)).get_content())
