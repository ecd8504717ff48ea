"""One stage: passes of two micro-batches meet if one more is in flight."""

from simulator.program.schedules.order import visits


def test_one_stage_with_pairs_keeps_one_micro_batch_ahead():
    order = [
        (visit.item.kind[0], visit.item.micro_batch, visit.paired)
        for visit in visits("1f1b", 1, 3, 1, pairs=True)
    ]
    assert order == [
        ("f", 0, False),
        ("f", 1, True),
        ("b", 0, False),
        ("f", 2, True),
        ("b", 1, False),
        ("b", 2, False),
    ]


def test_without_pairs_each_micro_batch_turns_round_at_once():
    kinds = "".join(visit.item.kind[0] for visit in visits("1f1b", 1, 3, 1))
    assert kinds == "fbfbfb"
