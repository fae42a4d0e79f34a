"""Exercises and results: what a lesson needs beside what it teaches."""

from .practice import (
    BEGIN, END, INTRODUCTION, PROGRESS_FILE, WORDS, Cause, Exercise, Lab, Mistake, Question, Quiz, Run,
    TookTooLong, Verdict, check, diagnose, diagnosis, difference, examine, exercise_lessons, find_exercise,
    find_lab, function_source, hint, lab_text, load_exercises, note_progress, plot_lab, practice_cells,
    progress_path, progress_table, prove_exercise, quiz, read_progress, require, run_answer, show_lab, show_value,
    solution, solution_source, stub_cell, stub_function, stub_source, task_text, time_limit, with_practice,
)
from .results import (
    FEWEST_SEEDS, NORMAL_FILE, PEER_QUESTIONS, PEERS, REASONS, RECORDED_HERE, RESULTS_VARIABLE, TIMES_FILE,
    Normality, format_ratio, is_normal, is_number, lesson_cost, normal_table, peers_table, read_record,
    read_results, record_result, recorded_file, recorded_lessons, results_table,
)

__all__ = [
    "BEGIN", "END", "INTRODUCTION", "PROGRESS_FILE", "WORDS", "Cause", "Exercise", "Lab", "Mistake", "Question",
    "Quiz", "Run", "TookTooLong", "Verdict", "check", "diagnose", "diagnosis", "difference", "examine",
    "exercise_lessons", "find_exercise", "find_lab", "function_source", "hint", "lab_text", "load_exercises",
    "note_progress", "plot_lab", "practice_cells", "progress_path", "progress_table", "prove_exercise", "quiz",
    "read_progress", "require", "run_answer", "show_lab", "show_value", "solution", "solution_source", "stub_cell",
    "stub_function", "stub_source", "task_text", "time_limit", "with_practice", "FEWEST_SEEDS", "NORMAL_FILE",
    "PEER_QUESTIONS", "PEERS", "REASONS", "RECORDED_HERE", "RESULTS_VARIABLE", "TIMES_FILE", "Normality",
    "format_ratio", "is_normal", "is_number", "lesson_cost", "normal_table", "peers_table", "read_record",
    "read_results", "record_result", "recorded_file", "recorded_lessons", "results_table",
]
