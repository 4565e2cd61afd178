"""For every preparation: arguments, columns given, columns wanted."""

CASES = {
    "drop_empty": [
        (
            {"columns": ["text"]},
            {"text": ["a", "", None, "  ", "b"], "n": [0, 1, 2, 3, 4]},
            {"text": ["a", "b"], "n": [0, 4]},
        ),
        ({"columns": ["n", "words"]}, {"n": [0, None, 2], "words": [["a"], ["b"], []]}, {"n": [0], "words": [["a"]]}),
        ({"columns": ["flag", "x"]}, {"flag": [False, True], "x": [0.0, None]}, {"flag": [False], "x": [0.0]}),
    ],
    "rename": [
        ({"columns": {"a": "text", "gone": "x"}}, {"a": ["1"], "b": ["2"]}, {"text": ["1"], "b": ["2"]}),
        ({"columns": {"a": "b", "b": "a"}}, {"a": ["1"], "b": ["2"]}, {"b": ["1"], "a": ["2"]}),
    ],
    "map_labels": [
        (
            {"column": "y", "names": {"0": "no", "1": "yes"}},
            {"y": [1, 0, None, 1], "x": ["a", "b", "c", "d"]},
            {"y": ["yes", "no", None, "yes"], "x": ["a", "b", "c", "d"]},
        ),
        ({"column": "y", "names": {"pos": "good"}}, {"y": ["pos"]}, {"y": ["good"]}),
        (
            {"column": "y", "names": {"pos": "good"}},
            {"x": ["a split without labels"]},
            {"x": ["a split without labels"]},
        ),
    ],
    "shuffle_labels": [
        (
            {"column": "y"},
            {"y": ["a", "b", "c", "d"], "x": [1, 2, 3, 4]},
            {"x": [1, 2, 3, 4], "y": ["c", "a", "b", "d"]},
        ),
        ({"column": "y"}, {"x": ["a split without labels"]}, {"x": ["a split without labels"]}),
    ],
    "number_text": [
        (
            {"column": "y", "step": 0.2},
            {"y": [3.76, 0.0, 4.95, None, -1.0], "x": ["a", "b", "c", "d", "e"]},
            {"y": ["3.8", "0.0", "5.0", None, None], "x": ["a", "b", "c", "d", "e"]},
        ),
        ({"column": "y", "step": 0.2}, {"x": ["a split without labels"]}, {"x": ["a split without labels"]}),
    ],
    "last_rows": [
        ({"count": 2}, {"x": [1, 2, 3]}, {"x": [2, 3]}),
        ({"count": 9}, {"x": [1, 2, 3]}, {"x": [1, 2, 3]}),
    ],
    "question_lines": [
        (
            {},
            {"line": ["NUM:date When was the war ?", "ABBR:exp  What is NASA?"]},
            {
                "text": ["When was the war ?", "What is NASA?"],
                "coarse_label": ["NUM", "ABBR"],
                "fine_label": ["NUM:date", "ABBR:exp"],
            },
        ),
        (
            {"column": "q"},
            {"q": ["HUM:ind Who?"]},
            {"text": ["Who?"], "coarse_label": ["HUM"], "fine_label": ["HUM:ind"]},
        ),
    ],
    "split_words": [
        (
            {"columns": ["words", "tags", "gone"]},
            {"words": ["a  b", "c", "d e"], "tags": [["X", "Y"], ["Z"], ["one too few"]], "n": [1, 2, 3]},
            {"words": [["a", "b"], ["c"]], "tags": [["X", "Y"], ["Z"]], "n": [1, 2]},
        ),
        ({"columns": ["words"]}, {"words": [None, "a"]}, {"words": [[], ["a"]]}),
    ],
    "split_labels": [
        (
            {"column": "y", "separator": "|"},
            {"y": ["a | b", None, "", "c|", "|"], "x": [1, 2, 3, 4, 5]},
            {"y": [["a", "b"], None, [], ["c"], []], "x": [1, 2, 3, 4, 5]},
        ),
        ({"column": "y", "separator": ";"}, {"y": [["a;b"], None]}, {"y": [["a;b"], None]}),
        ({"column": "y", "separator": ";"}, {"y": [None, None]}, {"y": [None, None]}),
        ({"column": "y", "separator": ";"}, {"x": ["a split without labels"]}, {"x": ["a split without labels"]}),
    ],
    "sms_lines": [
        (
            {},
            {
                "line": [
                    "sms,spam,text",
                    '12,0,"say ""hi"" now"',
                    "13,1,Win, win",
                    "ham\tok, see you ",
                    'spam\tCall 0800"',
                    "2,7,no",
                ]
            },
            {
                "text": ['say "hi" now', "Win, win", "ok, see you", "Call 0800"],
                "label": ["ham", "spam", "ham", "spam"],
            },
        ),
    ],
    "sign_labels": [
        (
            {"column": "mean", "neutral": 0.5},
            {"mean": [-3.2, 0.4, 0.6, -0.5, 0.0], "text": list("abcde")},
            {"mean": [-3.2, 0.6], "text": ["a", "c"], "label": ["negative", "positive"]},
        ),
        ({"column": "mean", "label": "y"}, {"mean": ["1.5", "0"]}, {"mean": ["1.5"], "y": ["positive"]}),
    ],
    "cause_or_effect": [
        (
            {},
            {"premise": ["It rained.", "It rained."], "question": ["cause", "effect"], "label": [0, 1]},
            {
                "premise": ["It rained. What was the cause of this?", "It rained. What happened as a result?"],
                "question": ["cause", "effect"],
                "label": [0, 1],
            },
        ),
    ],
    "choice_texts": [
        (
            {},
            {
                "question": ["q1", "q2", "q3", "q4"],
                "choices": [
                    {"text": ["a", "b", "c", "d"], "label": ["A", "B", "C", "D"]},
                    {"text": ["e", "f", "g"], "label": ["1", "2", "3"]},
                    {"text": ["h", "i", "j", "k", "l"], "label": ["A", "B", "C", "D", "E"]},
                    {"text": ["m", "n"], "label": ["B", "A"]},
                ],
                "answerKey": ["B", "1", "", "A"],
            },
            {
                "question": ["q1", "q2", "q3", "q4"],
                "choices": [["a", "b", "c", "d"], ["e", "f", "g"], ["h", "i", "j", "k", "l"], ["m", "n"]],
                "answerKey": [1, 0, None, 1],
            },
        ),
        (
            {"column": "options", "answer": "right"},
            {"options": [[{"label": "A", "text": "a"}, {"label": "B", "text": "b"}]] * 2, "right": ["B", None]},
            {"options": [["a", "b"]] * 2, "right": [1, None]},
        ),
        (
            {},
            {"choices": [{"text": ["a", "b"], "label": ["A", "B"]}], "id": ["a split without answers"]},
            {"choices": [["a", "b"]], "id": ["a split without answers"]},
        ),
    ],
    "fill_blank": [
        (
            {"column": "sentence", "choices": ["option1", "option2"]},
            {
                "sentence": ["The cat saw the dog but _ ran.", "_ ran.", None],
                "option1": ["the cat", "A", "a"],
                "option2": ["the dog", "B", "b"],
                "answer": ["1", "", "2"],
            },
            {
                "sentence": ["The cat saw the dog but", "", None],
                "option1": ["the cat ran.", "A ran.", "a"],
                "option2": ["the dog ran.", "B ran.", "b"],
                "answer": ["1", "", "2"],
            },
        ),
        (
            {"column": "x", "choices": ["y"], "blank": "[BLANK]"},
            {"x": ["snake_case is [BLANK] ."], "y": ["fine"]},
            {"x": ["snake_case is"], "y": ["fine ."]},
        ),
    ],
    "unnest": [
        (
            {"column": "t"},
            {"id": [1, 2], "t": [{"de": "ja", "en": "yes"}, {"de": "nein", "en": "no"}]},
            {"id": [1, 2], "de": ["ja", "nein"], "en": ["yes", "no"]},
        ),
        ({"column": "t"}, {"t": [{"a": 1, "b": None}]}, {"a": [1], "b": [None]}),
    ],
    "label_at_least": [
        (
            {"column": "r", "names": ["low", "high"]},
            {"r": [0.0, 0.49, 0.5, 1.0, None]},
            {"r": [0.0, 0.49, 0.5, 1.0, None], "label": ["low", "low", "high", "high", None]},
        ),
        ({"column": "r", "names": ["a", "b"], "label": "y", "at": 3}, {"r": [2, 3]}, {"r": [2, 3], "y": ["a", "b"]}),
    ],
    "labels_at_least": [
        (
            {"columns": ["b", "a"], "label": "y"},
            {"a": [0.5, 0.1, 0.9, None], "b": [0.7, 0.2, 0.4, 0.9]},
            {"a": [0.5, 0.1, 0.9, None], "b": [0.7, 0.2, 0.4, 0.9], "y": [["b", "a"], [], ["a"], None]},
        ),
        ({"columns": ["a"]}, {"a": [True, False]}, {"a": [True, False], "labels": [["a"], []]}),
    ],
    "keep_rows": [
        (
            {"column": "lang", "values": ["en", "de"]},
            {"lang": ["en", "fr", "de", None], "x": [1, 2, 3, 4]},
            {"lang": ["en", "de"], "x": [1, 3]},
        ),
        ({"column": "n", "values": [0]}, {"n": [1, 0]}, {"n": [0]}),
    ],
    "drop_words": [
        (
            {"words": "w", "tags": "t", "tag": "_"},
            {
                "w": [["du", "de", "le", "pain"], ["a"], []],
                "t": [["_", "ADP", "DET", "NOUN"], ["X"], []],
                "n": [1, 2, 3],
            },
            {"w": [["de", "le", "pain"], ["a"], []], "t": [["ADP", "DET", "NOUN"], ["X"], []], "n": [1, 2, 3]},
        ),
        (  # what does not fit is left for the check that names the row
            {"words": "w", "tags": "t", "tag": "_"},
            {"w": [["a", "b"], ["c"]], "t": [["_"], None]},
            {"w": [["a", "b"], ["c"]], "t": [["_"], None]},
        ),
    ],
    "bracketed_slots": [
        (
            {"column": "marked"},
            {
                "marked": [
                    "wake me at [time : nine am] [date : this week]",
                    "hello",
                    "play [song : up]beat's [genre : jazz]",
                ]
            },
            {
                "marked": [
                    "wake me at [time : nine am] [date : this week]",
                    "hello",
                    "play [song : up]beat's [genre : jazz]",
                ],
                "tokens": [["wake", "me", "at", "nine", "am", "this", "week"], ["hello"], ["play", "upbeat's", "jazz"]],
                "slots": [["O", "O", "O", "B-time", "I-time", "B-date", "I-date"], ["O"], ["O", "B-song", "B-genre"]],
            },
        ),
        (
            {"column": "m", "words": "w", "tags": "t"},
            {"m": ["[a : x][b : y] z", "[a:5:30]  p.m.", "left [over", "[no : w [in : w]]"]},
            {
                "m": ["[a : x][b : y] z", "[a:5:30]  p.m."],
                "w": [["xy", "z"], ["5:30", "p.m."]],
                "t": [["B-a", "O"], ["B-a", "O"]],
            },
        ),
    ],
    "mark_word": [
        (
            {},
            {
                "word": ["run", "bank"],
                "sentence1": ["She ran for the bus.", "On the bank"],
                "sentence2": ["A run of luck.", "Banks and a bank."],
                "start1": [4, 7],
                "end1": [7, 11],
                "start2": [2, 0],
                "end2": [5, 5],
            },
            {
                "word": ["run", "bank"],
                "sentence1": ["She *ran* for the bus.", "On the *bank*"],
                "sentence2": ["A *run* of luck.", "*Banks* and a bank."],
                "start1": [4, 7],
                "end1": [7, 11],
                "start2": [2, 0],
                "end2": [5, 5],
            },
        ),
        # A copy without offsets: equal, inflected, with the longest common beginning; "ran" is too far from "run".
        (
            {},
            {
                "word": ["carry", "meeting", "run", "self-help"],
                "sentence1": ["He carried a car .", "Meet me at the meeting .", "She ran .", "A book on Self-help ."],
                "sentence2": ["Carry on .", "No meetings .", "run , run !", "It helps the self ."],
            },
            {
                "word": ["carry", "meeting", "run", "self-help"],
                "sentence1": [
                    "He *carried* a car .",
                    "Meet me at the *meeting* .",
                    "She ran .",
                    "A book on *Self-help* .",
                ],
                "sentence2": ["*Carry* on .", "No *meetings* .", "*run* , run !", "It helps the self ."],
            },
        ),
        (
            {"sentences": {"text": ["from", "to"]}, "mark": "|"},
            {"word": ["b"], "text": ["a b"], "from": [2], "to": [3]},
            {"word": ["b"], "text": ["a |b|"], "from": [2], "to": [3]},
        ),
    ],
    "mark_spans": [
        (
            {},
            {
                "text": [
                    "Ann told Eve many lies about herself, which Eve kept. She should have known.",
                    "The dogs saw the dogs. They barked.",
                    'He said: "She left."',
                    "Ann , who was late , and Eve came . They sat .",
                ],
                "span1_text": ["eve", "the dogs.", "He", "Ann and Eve"],
                "span1_index": [2, 3, 0, 0],
                "span2_text": ["She", "they", "she", "They"],
                "span2_index": [10, 5, 2, 9],
            },
            {
                "text": [
                    "Ann told *Eve* many lies about herself, which Eve kept. #She# should have known.",
                    "The dogs saw *the dogs*. #They# barked.",
                    '*He* said: "#She# left."',
                    "*Ann* , who was late , and Eve came . #They# sat .",
                ],
                "span1_text": ["eve", "the dogs.", "He", "Ann and Eve"],
                "span1_index": [2, 3, 0, 0],
                "span2_text": ["She", "they", "she", "They"],
                "span2_index": [10, 5, 2, 9],
            },
        ),
        # The word number is not where the text has it: the nearest place counts; "Ann" is no part of "Anna".
        (
            {"text": "t", "spans": {"a": "_"}},
            {"t": ["Ann saw Anna and Ann\nLee"], "a_text": ["Ann Lee"], "a_index": [2]},
            {"t": ["Ann saw Anna and _Ann\nLee_"], "a_text": ["Ann Lee"], "a_index": [2]},
        ),
        (
            {"text": "t", "spans": {"a": "_"}},
            {"t": ["Ann saw Anna and Ann"], "a_text": ["Ann"], "a_index": [3]},
            {"t": ["Ann saw Anna and _Ann_"], "a_text": ["Ann"], "a_index": [3]},
        ),
    ],
    "question_answers": [
        (
            {},
            {
                "paragraph": ["p"] * 3,
                "question": ["Who sang? ", "Who sang? ", "When?"],
                "answer": [" Ann", "Eve", "At noon"],
                "idx": [{"paragraph": 2, "question": q, "answer": a} for q, a in ((5, 11), (5, 12), (6, 13))],
                "label": [1, 0, -1],
            },
            {
                "paragraph": ["p"] * 3,
                "question": ["Who sang? Ann", "Who sang? Eve", "When? At noon"],
                "answer": [" Ann", "Eve", "At noon"],
                "idx": [{"paragraph": 2, "question": q, "answer": a} for q, a in ((5, 11), (5, 12), (6, 13))],
                "label": [1, 0, -1],
                "question_id": ["2-5", "2-5", "2-6"],
            },
        ),
    ],
    "gap_candidates": [
        (
            {},
            {
                "passage": ["Ann sang.\n@highlight\nEve heard her\n@highlight\nRome was full", "No lines"],
                "query": ["@placeholder, said @placeholder's aunt", "In @placeholder"],
                "entities": [["Ann", "Eve", "Rome"], ["Oslo"]],
                "entity_spans": [{"text": ["Ann"], "start": [0], "end": [3]}, {"text": [], "start": [], "end": []}],
                "answers": [["Ann", "Eve"], []],
                "idx": [{"passage": 1, "query": 8}, {"passage": 2, "query": 9}],
            },
            {
                "passage": [*["Ann sang. Eve heard her. Rome was full"] * 3, "No lines"],
                "answers": [*[["Ann", "Eve"]] * 3, []],
                "query_id": ["1-8", "1-8", "1-8", "2-9"],
                "query": ["Ann, said Ann's aunt", "Eve, said Eve's aunt", "Rome, said Rome's aunt", "In Oslo"],
                "entity": ["Ann", "Eve", "Rome", "Oslo"],
                "label": [1, 1, 0, -1],
            },
        ),
    ],
    "pronoun_pairs": [
        (
            {"texts": ["premise", "hypothesis"]},
            {
                "premise": ["Her aunt saw him.", "His aunt saw Her.", "Their aunt saw her.", "The shelf hid her."],
                "hypothesis": ["x", "x", "x", "x"],
            },
            {
                "premise": ["Her aunt saw him.", "His aunt saw Her.", "Their aunt saw her.", "The shelf hid her."],
                "hypothesis": ["x", "x", "x", "x"],
                "pair": ["~ aunt saw ~.\nx", "~ aunt saw ~.\nx", "Their aunt saw ~.\nx", "The shelf hid ~.\nx"],
            },
        ),
    ],
}
