"""What a lesson needs beside what it teaches: results that are written down, and exercises that are checked."""

from .results import lesson_cost, read_record, record_result, recorded_file
from .typical import typical_range, typical_table
from .exercise import Exercise
from .guess import GuessByEye, upload_button
from .lab import Cause, Lab
from .questions import Question, Quiz
from .predict import predict_number
from .curves import read_curves
from .practice import check, hint, name_cause, quiz, require, show_lab, solution

__all__ = [
    "lesson_cost", "read_record", "record_result", "recorded_file", "typical_range", "typical_table", "Exercise",
    "Cause", "GuessByEye", "Lab", "Question", "Quiz", "check", "hint", "name_cause", "predict_number", "quiz",
    "read_curves", "require", "show_lab", "solution", "upload_button",
]
